"""A node that is renamed in the database, with everything it holds and while other workers are at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from schemas import parse_command
from tests.commits import commit
from tests.servers import Database
from worker.accounting.state.view import Facts
from worker.engine.batch import Decider
from worker.engine.intake import Item, fingerprint
from worker.engine.ports import Delivery, LedgerConflict
from worker.engine.result import Result, read_keys
from worker.ledger import readers
from worker.ledger.history import HistoryFilter, history, node_at
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger
from worker.ledger.verify import verify

pytestmark = pytest.mark.integration

CARD = {"address": "0000:3b:00.0", "vendor": "10de", "product": "1db6"}
HAS = {
    "inventory": {"cpus": "0-3", "memory_mib": 65_536, "devices": [CARD]},
    "policy": {"shared_cpus": "0-1", "dedicated_cpus": "2-3"},
}
PINNED = {"topology": {"cpu_policy": "dedicated"}}
ONE, TWO = UUID(int=1), UUID(int=2)
STAYS = """
SELECT
    n.id, n.failed_builds, p.labels::text, count(a.*) AS held, min(a.claimed_at) AS since,
    max(a.lease_expires_at) AS ends
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id
JOIN nodeledger.allocation AS a ON a.node_id = n.id
WHERE n.name = $1
GROUP BY n.id, p.labels
"""
FORMER = "SELECT f.name, n.name FROM nodeledger.former_name AS f JOIN nodeledger.node AS n ON n.id = f.node_id"


async def pairs(pool: asyncpg.Pool, query: str) -> dict[str, object]:
    return dict(map(tuple, await pool.fetch(query)))


def item(kind: str, node: str, **fields: object) -> Item:
    body = {"version": 1, "id": str(uuid4()), "kind": kind, "node": node, "issued_at": "2026-01-01T00:00:00Z"}
    raw = json.dumps({**body, **fields}).encode()
    parsed = parse_command(raw)
    return Item(parsed, fingerprint(parsed), Delivery(0, raw, 1, None, redelivered=False, received_at=0.0))


def claim(node: str, instance: UUID, vcpus: int = 1, **fields: object) -> Item:
    resources = {"vcpus": vcpus, "memory_mib": 64}
    return item("claim", node, instance=str(instance), project="p", resources=resources, **fields)


def rename(old: str, new: str, **fields: object) -> Item:
    return item("node.put", new, replaces=old, **{**HAS, **fields})


def answers(results: list[Result]) -> list[str]:
    told = [json.loads(rendered.text) for result in results for _, rendered in result.outcomes]
    return [" ".join(why["detail"] for why in outcome["reasons"]) or outcome["status"] for outcome in told]


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    made = await connect_pool(database.worker_url, min_size=2, max_size=8)
    puts = [item("node.put", "old", labels={"rack": "r1"}, **HAS), item("node.put", "other", **HAS)]
    claims = [
        claim("old", ONE, 2, **PINNED),
        claim("old", TWO, devices=[{"name": "gpu", "match": [{}]}], lease_seconds=600),
    ]
    assert answers(await commit(PostgresLedger(made), [*puts, *claims])) == ["applied"] * 4
    yield made
    assert [str(difference) async for difference in verify(made)] == []
    await made.close()


async def test_everything_goes_with_the_node_and_each_name_has_its_history(pool: asyncpg.Pool) -> None:
    ledger = PostgresLedger(pool)
    move = item("migrate", "old", instance=str(ONE), destination="other", reason="cold")
    assert answers(await commit(ledger, [move])) == ["applied"]
    before = await pool.fetchrow(STAYS, "old")
    assert answers(await commit(ledger, [rename("old", "new", labels={"rack": "r1"})])) == ["applied"]
    assert await pool.fetchrow(STAYS, "new") == before
    async with pool.acquire() as connection:
        detail = await readers.node(connection, "new")
        assert detail is not None
        assert (detail.former_names, [cpu.cpu for cpu in detail.pinned_cpus]) == (["old"], [2, 3])
        renamed_at = (await history(connection, HistoryFilter(node="new"), limit=1))[0].at
        just_before = await node_at(connection, "old", renamed_at - timedelta(microseconds=1))
        under_both = [await node_at(connection, name, renamed_at) for name in ("old", "new")]
        assert just_before is not None
        assert just_before.used == detail.counters
        assert [past and past.used for past in under_both] == [{}, detail.counters]
    assert answers(await commit(ledger, [item("confirm", "other", instance=str(ONE))])) == ["applied"]
    assert await pool.fetchval("SELECT count(*) FROM nodeledger.pinned_cpu_view WHERE node = 'new'") == 0


async def test_the_old_name_is_explained_until_somebody_has_it_again(pool: asyncpg.Pool) -> None:
    ledger, told = PostgresLedger(pool), "node old was renamed to newer: use that name"
    assert answers(await commit(ledger, [rename("old", "new"), rename("new", "newer")])) == ["applied"] * 2
    assert answers(await commit(ledger, [item("node.remove", "old")])) == [told]
    assert answers(await commit(ledger, [rename("old", "newer")])) == ["applied"]
    assert answers(await commit(ledger, [rename("newer", "old")])) == ["applied"]
    assert await pairs(pool, FORMER) == {"new": "old", "newer": "old"}
    batch = [item("node.remove", "old", force=True), item("node.remove", "new")]
    assert answers(await commit(ledger, batch)) == ["applied", "node new was renamed to old: use that name"]
    assert await pool.fetchval("SELECT count(*) FROM nodeledger.former_name") == 0
    assert answers(await commit(ledger, [item("node.remove", "new")])) == ["node new is not registered"]


async def test_names_change_hands_within_one_batch(pool: asyncpg.Pool) -> None:
    ids = await pairs(pool, "SELECT name, id FROM nodeledger.node")
    batch = [rename("old", "third"), rename("other", "old"), rename("third", "other"), rename("other", "last")]
    fresh = [item("node.put", "fresh", **HAS), rename("fresh", "other")]
    assert answers(await commit(PostgresLedger(pool), [*batch, *fresh])) == ["applied"] * 6
    now = await pairs(pool, "SELECT name, id FROM nodeledger.node")
    assert (now["last"], now["old"]) == (ids["old"], ids["other"])
    assert set(now) == {"last", "old", "other"}
    assert await pairs(pool, FORMER) == {"third": "last", "fresh": "other"}


async def test_a_worker_that_remembers_the_node_by_its_old_name_writes_nothing(pool: asyncpg.Pool) -> None:
    """One batch is decided while the node is renamed; the next finds the old name in the worker's memory."""
    stale, mine = PostgresLedger(pool), item("delete", "old", instance=str(ONE))
    assert answers(await commit(stale, [item("update", "old", instance=str(ONE), state="active")])) == ["applied"]

    async def meet_a_conflict() -> None:
        async with stale.transaction() as transaction:
            loaded = await transaction.load(read_keys([mine], Facts()))
            changes = Decider(loaded, Facts(), 0.0, timedelta(days=1), lambda _uri: None).run([mine]).changes
            assert answers(await commit(PostgresLedger(pool), [rename("old", "new")])) == ["applied"]
            await transaction.write(loaded, changes)

    with pytest.raises(LedgerConflict):
        await meet_a_conflict()
    assert answers(await commit(stale, [claim("old", uuid4())])) == ["node old was renamed to new: use that name"]
    assert answers(await commit(stale, [mine])) == ["applied"]
    assert await pool.fetchval("SELECT count(*) FROM nodeledger.pinned_cpu_view") == 0


async def test_workers_at_both_names_and_at_a_move_go_on_around_a_renaming(pool: asyncpg.Pool) -> None:
    async def work(node: str) -> None:
        ledger = PostgresLedger(pool)
        for _ in range(15):
            instance = uuid4()
            await commit(ledger, [claim(node, instance, topology=None, candidates=["other"])])
            await commit(ledger, [item("delete", node, instance=str(instance))])

    async def rename_to_and_fro() -> None:
        ledger = PostgresLedger(pool)
        for _ in range(4):
            assert answers(await commit(ledger, [rename("old", "new")])) == ["applied"]
            assert answers(await commit(ledger, [rename("new", "old")])) == ["applied"]

    await asyncio.gather(work("old"), work("new"), work("other"), rename_to_and_fro())
    held = "SELECT instance FROM nodeledger.allocation_view WHERE node = 'old' ORDER BY instance"
    assert [row["instance"] for row in await pool.fetch(held)] == [ONE, TWO]
