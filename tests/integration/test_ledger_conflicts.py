"""Two workers at the same nodes: what one decided on a state that the other changed is never written."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from schemas import Inventory, parse_command
from tests.commits import commit
from tests.servers import Database
from worker.accounting.state.view import Facts, Observation
from worker.engine.batch import Decider
from worker.engine.intake import Item, fingerprint
from worker.engine.ports import Delivery, LedgerConflict, ReadSet, Transaction, WriteSet
from worker.engine.result import Result, read_keys
from worker.ledger import readers
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger
from worker.ledger.verify import verify

pytestmark = pytest.mark.integration

NODES = ("cn-1", "cn-2", "cn-3", "cn-4")
WRITTEN = """
SELECT
    (SELECT count(*) FROM nodeledger.command WHERE kind <> 'node.put') + (SELECT count(*) FROM nodeledger.allocation)
    + (SELECT count(*) FROM nodeledger.outbox) + (SELECT count(*) FROM nodeledger.entry)
"""
OWNER = """
SELECT n.name FROM nodeledger.node AS n JOIN nodeledger.node_profile AS p ON p.node_id = n.id WHERE p.host_uuid = $1
"""
KEEPER, NEWCOMER, PARKED, HOST = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=0x4711)


def item(kind: str, node: str, *, command: UUID | None = None, **fields: object) -> Item:
    body = {
        "version": 1,
        "id": str(command or uuid4()),
        "kind": kind,
        "node": node,
        "issued_at": "2026-01-01T00:00:00Z",
    }
    raw = json.dumps({**body, **fields}).encode()
    parsed = parse_command(raw)
    return Item(parsed, fingerprint(parsed), Delivery(0, raw, 1, None, redelivered=False, received_at=0.0))


def claim(node: str, instance: UUID, *, command: UUID | None = None, memory_mib: int = 64, **fields: object) -> Item:
    resources = {"vcpus": 1, "memory_mib": memory_mib}
    return item("claim", node, command=command, instance=str(instance), project="p", resources=resources, **fields)


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    made = await connect_pool(database.worker_url, min_size=2, max_size=8)
    inventory = {"cpus": "0-3", "memory_mib": 65_536}
    await commit(PostgresLedger(made), [item("node.put", node, inventory=inventory) for node in NODES])
    yield made
    await made.close()


def statuses(results: list[Result]) -> list[str]:
    return [rendered.status for result in results for _, rendered in result.outcomes]


async def load(transaction: Transaction, *items: Item) -> tuple[ReadSet, WriteSet]:
    """Load and decide, as a worker does."""
    loaded = await transaction.load(read_keys(items, Facts()))
    changes = Decider(loaded, Facts(), 0.0, timedelta(days=1), lambda _uri: None).run(items).changes
    changes.outbox = uuid4()
    return loaded, changes


CHANGES = {
    "its node took something": "UPDATE nodeledger.node SET generation = generation + 1 WHERE name = 'cn-1'",
    "its node is gone": "DELETE FROM nodeledger.node WHERE name = 'cn-1'",
    "a node that it did not choose took something": (
        "UPDATE nodeledger.node SET generation = generation + 1 WHERE name = 'cn-2'"
    ),
    "its instance is somewhere": f"INSERT INTO nodeledger.instance (id, version) VALUES ('{NEWCOMER}', 1)",
    "an instance that it looked at changed": (
        f"UPDATE nodeledger.instance SET version = version + 1 WHERE id = '{KEEPER}'"
    ),
    "its command was answered": (
        "INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, received_at, at, outcome) "
        f"VALUES ('{PARKED}', '{PARKED}', 'claim', 'parked', 'cn-1', now(), now(), '{{}}')"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_was_decided_on_a_state_that_is_no_more_is_not_written(pool: asyncpg.Pool, change: str) -> None:
    ledger = PostgresLedger(pool)
    await commit(ledger, [claim("cn-1", KEEPER)])
    again = claim("cn-1", KEEPER)  # is refused: it is there already
    mine = claim("cn-1", NEWCOMER, command=PARKED, candidates=["cn-1", "cn-2"])
    before = await pool.fetchval(WRITTEN)

    async def meet_a_conflict() -> None:
        async with ledger.transaction() as transaction:
            loaded, changes = await load(transaction, again, mine)
            assert (await pool.execute(CHANGES[change])).endswith(" 1")
            await transaction.write(loaded, changes)

    with pytest.raises(LedgerConflict):
        await meet_a_conflict()
    assert await pool.fetchval(WRITTEN) - before == (change == "its command was answered")


async def test_while_a_batch_is_decided_nobody_waits_for_it(pool: asyncpg.Pool) -> None:
    async with PostgresLedger(pool).transaction() as transaction:
        await load(transaction, claim("cn-1", NEWCOMER))
        assert statuses(await asyncio.wait_for(commit(PostgresLedger(pool), [claim("cn-1", KEEPER)]), 30)) == [
            "applied"
        ]


async def test_a_batch_that_locked_its_nodes_is_not_overtaken(pool: asyncpg.Pool) -> None:
    async with PostgresLedger(pool).transaction(locking=True) as transaction:
        loaded, changes = await load(transaction, claim("cn-1", NEWCOMER))
        with pytest.raises(asyncpg.LockNotAvailableError):
            await pool.execute("SELECT FROM nodeledger.node WHERE name = 'cn-1' FOR UPDATE NOWAIT")
        await transaction.write(loaded, changes)
    assert await pool.fetchval("SELECT count(*) FROM nodeledger.allocation") == 1


async def test_the_last_of_something_is_given_once_however_many_want_it_at_the_same_time(pool: asyncpg.Pool) -> None:
    ledgers = [PostgresLedger(pool) for _ in range(6)]
    most = 40_000  # MiB: more than half of the node
    claims = [claim("cn-1", uuid4(), memory_mib=most) for _ in ledgers]
    results = await asyncio.gather(*(commit(ledger, [one]) for ledger, one in zip(ledgers, claims, strict=True)))
    assert sorted(status for result in results for status in statuses(result)) == ["applied"] + ["rejected"] * 5


def answered_by(host: UUID, *nodes: str, address: str = "qemu:///system") -> Facts:
    made = Inventory(cpus="0-3", memory_mib=65_536)
    return Facts({node: Observation(datetime.now(UTC), address, made, host_uuid=host) for node in nodes})


async def test_one_host_is_one_node_however_many_register_it_at_the_same_time(pool: asyncpg.Pool) -> None:
    names = ("host-1", "host-1.example.org", "HOST-1", "host-2")
    puts = [item("node.put", name, hypervisor="qemu:///system") for name in names]
    ones = (commit(PostgresLedger(pool), [put], answered_by(HOST, put.command.node)) for put in puts)
    results = await asyncio.gather(*ones)
    assert sorted(status for result in results for status in statuses(result)) == ["applied"] + ["rejected"] * 3
    owner = await pool.fetchval(OWNER, HOST)
    refused = await pool.fetch("SELECT codes, outcome FROM nodeledger.command WHERE status = 'rejected'")
    assert {code for row in refused for code in row["codes"]} == {"hypervisor_taken"}
    assert all(f"that of node {owner}" in row["outcome"] for row in refused)
    others = [name for name in names if name != owner]
    again = commit(PostgresLedger(pool), [item("node.remove", owner)])
    assert statuses(await again) == ["applied"]
    put = item("node.put", others[0], hypervisor="qemu:///system", labels={"rack": "r2", "row": "7"})
    after = await commit(PostgresLedger(pool), [put], answered_by(HOST, others[0]))
    assert statuses(after) == ["applied"]
    async with pool.acquire() as connection:
        detail = await readers.node(connection, others[0])
    assert detail is not None
    assert (detail.host_uuid, detail.node.labels) == (HOST, {"rack": "r2", "row": "7"})


@pytest.mark.parametrize(("old", "new"), [("cn-1", "cn-2"), ("cn-2", "cn-1")])
async def test_a_host_goes_from_one_node_to_another_within_one_batch(pool: asyncpg.Pool, old: str, new: str) -> None:
    ledger = PostgresLedger(pool)
    before = item("node.put", old, hypervisor="qemu:///system")
    assert statuses(await commit(ledger, [before], answered_by(HOST, old))) == ["applied"]
    batch = [
        item("node.put", old, inventory={"cpus": "0-3", "memory_mib": 65_536}),
        item("node.put", new, hypervisor="qemu:///system"),
    ]
    assert statuses(await commit(ledger, batch, answered_by(HOST, new))) == ["applied"] * 2
    assert await pool.fetchval(OWNER, HOST) == new


async def test_a_node_whose_host_turns_out_to_be_another_node_is_decided_on_as_one_that_does_not_answer(
    pool: asyncpg.Pool,
) -> None:
    ledger = PostgresLedger(pool)
    first, second = (item("node.put", name, hypervisor="qemu:///system") for name in ("host-1", "host-2"))
    assert statuses(await commit(ledger, [first], answered_by(HOST, "host-1"))) == ["applied"]
    silent = Facts({"host-2": Observation(datetime.now(UTC), "qemu:///system", None, "it does not answer")})
    assert statuses(await commit(ledger, [second], silent)) == ["applied"]
    assert statuses(await commit(ledger, [claim("host-2", NEWCOMER)], answered_by(HOST, "host-2"))) == ["parked"]
    assert statuses(await commit(ledger, [claim("host-1", KEEPER)], answered_by(HOST, "host-1"))) == ["applied"]
    reachable = "SELECT reachable FROM nodeledger.node WHERE name = $1"
    assert [await pool.fetchval(reachable, name) for name in ("host-1", "host-2")] == [True, False]


async def test_workers_that_share_nodes_never_wait_for_each_other_in_a_ring(
    pool: asyncpg.Pool, database: Database
) -> None:
    """Claims that may go anywhere, and deletes, which take several statements."""
    draw = random.Random(5)

    async def work() -> None:
        ledger = PostgresLedger(pool)
        for _ in range(25):
            mine = {uuid4(): draw.choice(NODES) for _ in range(3)}
            others = [list(draw.sample(NODES, 3)) for _ in mine]
            claims = [
                claim(node, instance, candidates=[node, *(name for name in other if name != node)])
                for (instance, node), other in zip(mine.items(), others, strict=True)
            ]
            assert statuses(await commit(ledger, claims)) == ["applied"] * 3
            gone = [item("delete", node, instance=str(instance)) for instance, node in mine.items()]
            assert "dead" not in statuses(await commit(ledger, gone))

    await asyncio.gather(*(work() for _ in range(4)))
    assert await pool.fetchval(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{database.name}'") == 0
    assert [str(difference) async for difference in verify(pool)] == []


LOSE_THE_LAST_CLAIM = """
    DELETE FROM nodeledger.allocation WHERE instance = '{guest}';
    DELETE FROM nodeledger.instance WHERE id = '{guest}';
    DELETE FROM nodeledger.command WHERE instance = '{guest}';
    DELETE FROM nodeledger.outbox;
    TRUNCATE nodeledger.entry;
    UPDATE nodeledger.node SET generation = generation - 1, stamp = {stamp}, used = '{{}}', counters = '{{}}'
    WHERE name = 'cn-1'
"""
"""What a fail-over to a replica that lags does to the ledger; the stamp is that of the generation before."""


async def test_a_node_remembered_from_before_a_fail_over_that_lost_commits_is_not_used(
    pool: asyncpg.Pool, database: Database
) -> None:
    lost, kept, mine = (UUID(int=number) for number in (11, 12, 13))
    remembering, other = PostgresLedger(pool), PostgresLedger(pool)
    stamp = await pool.fetchval("SELECT stamp FROM nodeledger.node WHERE name = 'cn-1'")
    await commit(remembering, [claim("cn-1", lost, memory_mib=1024)])
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(LOSE_THE_LAST_CLAIM.format(guest=lost, stamp=stamp))
    await owner.close()
    await commit(other, [claim("cn-1", kept, memory_mib=2048)])  # on the new primary, up to the same generation
    assert statuses(await commit(remembering, [claim("cn-1", mine)])) == ["applied"]
    assert [difference async for difference in verify(pool)] == []
    assert await pool.fetchval(
        "SELECT used FROM nodeledger.node_usage WHERE node = 'cn-1' AND resource = 'memory_mib'"
    ) == (2048 + 64)


async def test_a_batch_that_was_decided_before_a_fail_over_that_lost_commits_is_not_written(
    pool: asyncpg.Pool, database: Database
) -> None:
    lost, kept, mine = (UUID(int=number) for number in (11, 12, 13))
    ledger = PostgresLedger(pool)
    stamp = await pool.fetchval("SELECT stamp FROM nodeledger.node WHERE name = 'cn-1'")
    await commit(ledger, [claim("cn-1", lost, memory_mib=1024)])
    owner = await asyncpg.connect(database.owner_url)

    async def fail_over_meanwhile() -> None:
        async with ledger.transaction() as transaction:
            loaded, changes = await load(transaction, claim("cn-1", mine))
            await owner.execute(LOSE_THE_LAST_CLAIM.format(guest=lost, stamp=stamp))
            await commit(PostgresLedger(pool), [claim("cn-1", kept, memory_mib=2048)])
            await transaction.write(loaded, changes)

    with pytest.raises(LedgerConflict):
        await fail_over_meanwhile()
    await owner.close()
    assert [difference async for difference in verify(pool)] == []


async def test_a_deadlock_is_told_as_one_and_is_no_absence_of_the_database(pool: asyncpg.Pool) -> None:
    async def entangled() -> None:
        async with pool.acquire() as theirs, theirs.transaction():
            await theirs.execute("SELECT FROM nodeledger.node WHERE name = 'cn-2' FOR UPDATE")
            async with PostgresLedger(pool).transaction(locking=True) as transaction:
                await transaction.load(read_keys([claim("cn-1", KEEPER)], Facts()))
                results = await asyncio.gather(
                    transaction.load(read_keys([claim("cn-2", KEEPER)], Facts())),
                    theirs.execute("SELECT FROM nodeledger.node WHERE name = 'cn-1' FOR UPDATE"),
                    return_exceptions=True,
                )
                raise next(one for one in results if isinstance(one, BaseException))

    with pytest.raises(LedgerConflict) as caught:
        await entangled()
    assert caught.value.cause == "deadlock"
    assert statuses(await commit(PostgresLedger(pool), [claim("cn-1", KEEPER)])) == ["applied"]
