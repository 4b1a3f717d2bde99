from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.commits import commit
from tests.integration.ledger_seed import DELETED, KEPT, MOVING, PINNED, SHARED, days, seed
from tests.integration.test_ledger_conflicts import claim, item, statuses
from tests.servers import Database
from worker.ledger.history import HistoryFilter, history, node_at, use_over_time
from worker.ledger.maintenance import Retention, keep_house
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger
from worker.ledger.verify import verify

pytestmark = pytest.mark.integration


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[asyncpg.Pool]:
    await seed(database.worker_url)
    pool = await connect_pool(database.worker_url, max_size=2)
    yield pool
    await pool.close()


def since(moment: datetime) -> timedelta:
    return datetime.now(UTC) - moment


async def partitions(pool: asyncpg.Pool) -> set[str]:
    rows = await pool.fetch(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'nodeledger.entry'::regclass"
    )
    return {row["relname"] for row in rows}


async def test_entries_are_carried_forward_and_every_sum_stays(ledger: asyncpg.Pool) -> None:
    async with ledger.acquire() as connection:
        before = await node_at(connection, "cn-1", days(100))
        billed = await use_over_time(connection, "red", days(60), days(70))
        await keep_house(ledger, replace(KEPT, entries=since(days(40))))
        lines = await history(connection, HistoryFilter(node="cn-1"))
        assert [line.kind for line in lines] == ["claim", "resize", "claim", "carried", "carried"]
        assert {line.instance for line in lines if line.kind == "carried"} == {PINNED, SHARED}
        assert await node_at(connection, "cn-1", days(100)) == before
        assert await use_over_time(connection, "red", days(60), days(70)) == billed
    assert [difference async for difference in verify(ledger)] == []


async def test_carrying_twice_changes_nothing_more(ledger: asyncpg.Pool) -> None:
    everything = replace(KEPT, entries=since(days(200)))
    await keep_house(ledger, everything)
    carried = await ledger.fetch("TABLE nodeledger.entry")
    swept = await keep_house(ledger, everything)
    assert swept.portions_carried == 0
    assert await ledger.fetch("TABLE nodeledger.entry") == carried
    assert [difference async for difference in verify(ledger)] == []


async def test_months_are_made_ahead_and_leave_when_they_are_empty(ledger: asyncpg.Pool, database: Database) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("CREATE TABLE nodeledger.entry_2025_05 (LIKE nodeledger.entry)")
    await owner.execute(
        "ALTER TABLE nodeledger.entry ATTACH PARTITION nodeledger.entry_2025_05"
        " FOR VALUES FROM ('2025-05-01Z') TO ('2025-06-01Z')"
    )
    await owner.close()
    now = datetime.now(UTC)
    assert {"entry_2025_05", "entry_carried", "entry_rest", f"entry_{now:%Y_%m}"} < await partitions(ledger)
    swept = await keep_house(ledger, replace(KEPT, entries=since(datetime(2025, 6, 2, tzinfo=UTC))))
    assert swept.months_dropped == 1
    assert "entry_2025_05" not in await partitions(ledger)


async def test_entries_that_came_before_their_month_was_made_move_into_it(
    ledger: asyncpg.Pool, database: Database
) -> None:
    owner = await asyncpg.connect(database.owner_url)
    month = f"entry_{datetime.now(UTC):%Y_%m}"
    await owner.execute(f"DROP TABLE nodeledger.{month}")
    await owner.execute("UPDATE nodeledger.entry SET at = now() WHERE node = 'cn-2'")
    assert (await keep_house(ledger, KEPT)).months_made == 1
    assert await owner.fetchval(f"SELECT count(*) FROM nodeledger.{month}") == 1
    await owner.close()


async def test_old_rows_leave_and_the_rest_stays(ledger: asyncpg.Pool) -> None:
    old, young = datetime.now(UTC) - timedelta(days=31), datetime.now(UTC) - timedelta(days=29)
    await ledger.executemany(
        "INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, received_at, at, outcome)"
        " VALUES ($1, $1, 'claim', $3, 'cn-1', $2, $2, '{}')",
        [(uuid4(), at, status) for at in (old, young) for status in ("applied", "rejected", "dead") for _ in range(5)],
    )
    await ledger.executemany(
        "INSERT INTO nodeledger.dead_letter"
        " (digest, reason, detail, fingerprint, body, first_seen, last_seen, state)"
        " VALUES ($1, 'poison', '', '', '', $2, $2, $3)",
        [(uuid4(), days(0), state) for state in ("open", "replayed", "resolved", "discarded")],
    )
    await ledger.execute("UPDATE nodeledger.instance SET deleted_at = $2 WHERE id = $1", MOVING, days(1))
    swept = await keep_house(ledger, KEPT, portion=3)
    assert (swept.commands, swept.dead_letters, swept.tombstones) == (11, 2, 1)
    assert await ledger.fetchval("SELECT count(*) FROM nodeledger.command WHERE at < $1", young) == 6
    assert await ledger.fetchval("SELECT count(*) FROM nodeledger.instance WHERE id = $1", MOVING) == 1
    assert await ledger.fetchval("SELECT count(*) FROM nodeledger.dead_letter") == 2


async def test_what_is_kept_forever_stays(ledger: asyncpg.Pool) -> None:
    await ledger.execute("UPDATE nodeledger.instance SET deleted_at = $2 WHERE id = $1", MOVING, days(1))
    forever = Retention(commands=None, tombstones=None, dead_letters=None, entries=None, drift=None)
    swept = await keep_house(ledger, forever)
    assert (swept.commands, swept.tombstones, swept.dead_letters, swept.portions_carried) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "call", ["purge_commands(now(), 10)", "carry_entries(now(), '', 10)", "purge_commands(NULL, 1)"]
)
async def test_the_worker_cannot_have_young_rows_removed(ledger: asyncpg.Pool, call: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="younger than a day"):
        await ledger.fetchval(f"SELECT nodeledger.{call}")


@pytest.mark.parametrize(
    ("state", "instance", "kept"),
    [("open", DELETED, 1), ("replayed", DELETED, 1), ("open", None, 1), ("open", PINNED, 0), ("discarded", DELETED, 0)],
)
async def test_a_deleted_instance_is_remembered_while_a_dead_letter_could_claim_it(
    ledger: asyncpg.Pool, state: str, instance: UUID | None, kept: int
) -> None:
    command = uuid4()
    await ledger.execute(
        "INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, instance, received_at, at, outcome)"
        " VALUES ($1, $1, 'claim', 'dead', 'cn-1', $2, $3, $3, '{}')",
        command, instance, days(0),
    )  # fmt: skip
    await ledger.execute(
        "INSERT INTO nodeledger.dead_letter"
        " (digest, reason, detail, fingerprint, body, kind, command, first_seen, last_seen, state)"
        " VALUES ($1, 'poison', '', '', '', 'claim', $1, $2, $2, $3)",
        command, days(0), state,
    )  # fmt: skip
    await keep_house(ledger, KEPT)
    assert await ledger.fetchval("SELECT count(*) FROM nodeledger.instance WHERE id = $1", DELETED) == kept


LONG_AGO = timedelta(days=91)
BUILDS = "cn-9"
IDLE = "SELECT id FROM nodeledger.instance WHERE idle_since IS NOT NULL"


async def aborted(pool: asyncpg.Pool, *guests: UUID, **fields: Any) -> None:
    """Instances whose builds failed long ago."""
    await commit(PostgresLedger(pool), [item("node.put", BUILDS, inventory={"cpus": "0-3", "memory_mib": 65_536})])
    for guest in guests:
        await commit(PostgresLedger(pool), [claim(BUILDS, guest, **fields)])
        build = item("abort", BUILDS, instance=str(guest))
        assert statuses(await commit(PostgresLedger(pool), [build])) == ["applied"]
    assert set(guests) <= {row["id"] for row in await pool.fetch(IDLE)}
    await pool.execute(
        "UPDATE nodeledger.instance SET idle_since = now() - $1::interval WHERE idle_since IS NOT NULL", LONG_AGO
    )


async def known(pool: asyncpg.Pool, guest: UUID) -> bool:
    found: bool = await pool.fetchval("SELECT EXISTS (SELECT FROM nodeledger.instance WHERE id = $1)", guest)
    return found


async def test_what_is_known_of_an_instance_whose_build_failed_leaves_like_a_tombstone(ledger: asyncpg.Pool) -> None:
    gone, again, shelved = (UUID(int=number) for number in (901, 902, 903))
    await aborted(ledger, gone, again)
    await commit(PostgresLedger(ledger), [claim(BUILDS, again), claim(BUILDS, shelved)])
    report = item("update", BUILDS, instance=str(shelved), state="shelved_offloaded")
    assert statuses(await commit(PostgresLedger(ledger), [report])) == ["applied"]
    assert (await keep_house(ledger, replace(KEPT, tombstones=None))).idle_instances == 0
    swept = await keep_house(ledger, KEPT)
    assert swept.idle_instances >= 1
    assert [await known(ledger, guest) for guest in (gone, again, shelved)] == [False, True, True]
    assert await ledger.fetch(IDLE) == []
    assert statuses(await commit(PostgresLedger(ledger), [claim(BUILDS, gone)])) == ["applied"]
    assert [difference async for difference in verify(ledger)] == []


async def test_a_young_instance_without_a_holding_is_kept(ledger: asyncpg.Pool) -> None:
    guest = UUID(int=901)
    await aborted(ledger, guest)
    await ledger.execute("UPDATE nodeledger.instance SET idle_since = now() - interval '29 days'")
    assert (await keep_house(ledger, KEPT)).idle_instances == 0
    assert await known(ledger, guest)


@pytest.mark.parametrize("state", ["open", "replayed"])
async def test_an_instance_that_an_old_letter_could_claim_is_kept_with_its_revision(
    ledger: asyncpg.Pool, state: str
) -> None:
    guest = UUID(int=901)
    old = claim(BUILDS, guest, revision=1)
    await aborted(ledger, guest, revision=2)
    letter = "a letter that is not dealt with"
    await ledger.execute(
        "INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, instance, received_at, at, outcome)"
        " VALUES ($1, $2, 'claim', 'dead', 'cn-9', $3, now(), now(), '{}')",
        old.command.id, old.fingerprint, guest,
    )  # fmt: skip
    await ledger.execute(
        "INSERT INTO nodeledger.dead_letter (digest, reason, detail, fingerprint, command, kind, body, first_seen,"
        " last_seen, state) VALUES ($1, 'poison', $2, '', $1, 'claim', '', now(), now(), $3)",
        old.command.id, letter, state,
    )  # fmt: skip
    await keep_house(ledger, KEPT)
    assert await known(ledger, guest)
    (result,) = await commit(PostgresLedger(ledger), [old])
    assert [rendered.status for _, rendered in result.outcomes] == ["rejected"]
    assert '"stale"' in result.outcomes[0][1].text
    await ledger.execute("UPDATE nodeledger.dead_letter SET state = 'discarded'")
    await ledger.execute(
        "UPDATE nodeledger.instance SET idle_since = now() - $1::interval WHERE id = $2", LONG_AGO, guest
    )
    await keep_house(ledger, KEPT)
    assert not await known(ledger, guest)
