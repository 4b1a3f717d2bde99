"""Parked commands in the database: nothing but their own end settles them, and no count of them goes astray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic_core import from_json

from tests.commits import commit
from tests.integration.ledger_seed import KEPT
from tests.integration.test_ledger_conflicts import claim, item, load, statuses
from tests.servers import Database
from worker.accounting.state.view import Facts, Observation
from worker.engine.intake import Item, unpark
from worker.engine.ports import NO_REPLY, LedgerConflict, Parked
from worker.ledger.maintenance import keep_house
from worker.ledger.parked_rows import parked_columns
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger
from worker.ledger.statements import bound, statement
from worker.ledger.verify import verify
from worker.operations.giving_up import give_all_up

pytestmark = pytest.mark.integration

ADDRESS = "test:///default"
INVENTORY = {"cpus": "0-3", "memory_mib": 65_536}


def silent() -> Facts:
    return Facts({"lv-1": Observation(datetime.now(UTC), ADDRESS, None, "it does not answer")})


@contextmanager
def no_progress(_what: str) -> Iterator[Callable[[int], None]]:
    yield lambda _count: None


def put() -> Item:
    return item("node.put", "lv-1", inventory=INVENTORY)


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    made = await connect_pool(database.worker_url, min_size=2, max_size=4)
    await commit(PostgresLedger(made), [item("node.put", "lv-1", hypervisor=ADDRESS)], silent())
    yield made
    await made.close()


async def park(pool: asyncpg.Pool) -> Item:
    """A claim that waits for the node's hypervisor, as it comes back from its wait."""
    results = await commit(PostgresLedger(pool), [claim("lv-1", uuid4())], silent())
    assert statuses(results) == ["parked"]
    return (await waiting(pool))[-1]


async def waiting(pool: asyncpg.Pool) -> list[Item]:
    return [unpark(one) for one in await PostgresLedger(pool).parked("lv-1", 10)]


async def status(pool: asyncpg.Pool, command: UUID) -> str:
    found: str = await pool.fetchval("SELECT status FROM nodeledger.command WHERE id = $1", command)
    return found


async def differences(pool: asyncpg.Pool) -> list[str]:
    return [difference.detail async for difference in verify(pool)]


def copy_of(parked: Item, reason: str) -> Item:
    """A copy of a parked command whose letter is safe in the dead letters."""
    assert parked.parked is not None
    copy = claim("lv-1", UUID(int=0))
    assert copy.delivery is not None
    copy.delivery.body = parked.parked.body
    return Item(parked.command, parked.fingerprint, copy.delivery, dead_lettered=(reason, "a copy"))


@pytest.mark.parametrize("reason", ["misrouted", "poison"])
async def test_a_copy_that_is_dead_lettered_leaves_its_parked_command_parked(pool: asyncpg.Pool, reason: str) -> None:
    parked = await park(pool)
    (result,) = await commit(PostgresLedger(pool), [copy_of(parked, reason)])
    assert (len(result.done), result.outcomes) == (1, [])
    assert await status(pool, parked.command.id) == "parked"
    assert await differences(pool) == []
    assert statuses(await commit(PostgresLedger(pool), [put(), parked])) == ["applied", "applied"]
    assert await differences(pool) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE nodeledger.command SET status = 'dead' WHERE status = 'parked'",
        "UPDATE nodeledger.command SET status = 'applied' WHERE status = 'parked'",
        "DELETE FROM nodeledger.parked_command",
        """
        INSERT INTO nodeledger.parked_command (node, command, body, received_at, parked_at, blocking, detail)
        SELECT node, id, '', now(), now(), true, '' FROM nodeledger.command WHERE status <> 'parked' LIMIT 1
        """,
    ],
)
async def test_the_database_refuses_a_command_that_is_answered_and_waits_or_is_parked_and_does_not(
    pool: asyncpg.Pool, change: str
) -> None:
    await park(pool)
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(change)


async def contradicted(pool: asyncpg.Pool, database: Database) -> list[Item]:
    """Three parked commands, of which two are said to be answered, as an earlier version could leave them."""
    dead, applied, lost = [await park(pool) for _ in range(3)]
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("ALTER TABLE nodeledger.command DISABLE TRIGGER USER")
    move = "UPDATE nodeledger.command SET status = $2, outcome = $3 WHERE id = $1"
    await owner.execute(move, dead.command.id, "dead", '{"status": "dead", "dead_letter": {}}')
    await owner.execute(move, applied.command.id, "applied", '{"status": "applied"}')
    await owner.execute("ALTER TABLE nodeledger.command ENABLE TRIGGER USER")
    await owner.execute("UPDATE nodeledger.node SET parked = 7; DELETE FROM nodeledger.probe")
    await owner.close()
    return [dead, applied, lost]


async def test_housekeeping_fixes_what_contradicts_the_parked_rows(pool: asyncpg.Pool, database: Database) -> None:
    dead, _, lost = await contradicted(pool, database)
    assert len(await differences(pool)) == 3
    assert (await keep_house(pool, KEPT)).repaired == 4
    assert await differences(pool) == []
    assert [one.command.id for one in await waiting(pool)] == [dead.command.id, lost.command.id]
    outcome = await pool.fetchval("SELECT outcome FROM nodeledger.command WHERE id = $1", dead.command.id)
    assert from_json(outcome) == {"status": "parked", "sequence": 2}
    assert await PostgresLedger(pool).due_probes(9, least=1, most=9) == ["lv-1"]
    assert (await keep_house(pool, KEPT)).repaired == 0


async def test_dropping_what_is_parked_drops_all_of_it_and_fixes_the_rest_at_once(
    pool: asyncpg.Pool, database: Database
) -> None:
    dead, applied, lost = await contradicted(pool, database)
    dropped = await give_all_up(pool, nodes=["lv-1"], commands=None, actor="ann", progress=no_progress)
    assert dropped == {dead.command.id, lost.command.id}
    assert await status(pool, applied.command.id) == "applied"
    assert await waiting(pool) == []
    assert await differences(pool) == []
    assert statuses(await commit(PostgresLedger(pool), [put(), claim("lv-1", uuid4())])) == ["applied", "applied"]


async def test_dropping_fixes_a_node_that_counts_what_is_parked_nowhere(pool: asyncpg.Pool) -> None:
    await pool.execute("UPDATE nodeledger.node SET parked = 7")
    assert await give_all_up(pool, nodes=["lv-1"], commands=None, actor="ann", progress=no_progress) == set()
    assert await differences(pool) == []


async def test_removing_a_node_fixes_what_contradicts_its_parked_rows_at_once(
    pool: asyncpg.Pool, database: Database
) -> None:
    dead, _, lost = await contradicted(pool, database)
    assert statuses(await commit(PostgresLedger(pool), [item("node.remove", "lv-1")])) == ["applied"]
    assert await differences(pool) == []
    left = await waiting(pool)
    assert [one.command.id for one in left] == [dead.command.id, lost.command.id]
    assert await PostgresLedger(pool).due_probes(9, least=1, most=9) == ["lv-1"]
    assert statuses(await commit(PostgresLedger(pool), left)) == ["rejected", "rejected"]
    assert await differences(pool) == []


async def test_a_replay_beside_the_removal_of_its_node_ends_what_contradicts_it(
    pool: asyncpg.Pool, database: Database
) -> None:
    dead, _, lost = await contradicted(pool, database)
    replay = copy_of(dead, "poison")
    replay.dead_lettered = None
    await commit(PostgresLedger(pool), [item("node.remove", "lv-1"), replay])
    assert await status(pool, dead.command.id) == "rejected"
    assert [one.command.id for one in await waiting(pool)] == [lost.command.id]
    assert await differences(pool) == []


async def test_a_node_put_again_does_not_count_what_was_answered_in_the_same_batch(pool: asyncpg.Pool) -> None:
    parked = await park(pool)
    await commit(PostgresLedger(pool), [item("node.remove", "lv-1", force=True)])
    batch = [parked, put()]
    assert statuses(await commit(PostgresLedger(pool), batch)) == ["rejected", "applied"]
    assert await differences(pool) == []


async def test_a_node_put_again_counts_what_still_waits(pool: asyncpg.Pool) -> None:
    first, second = await park(pool), await park(pool)
    await commit(PostgresLedger(pool), [item("node.remove", "lv-1", force=True)])
    await commit(PostgresLedger(pool), [put(), first])
    assert await pool.fetchval("SELECT parked FROM nodeledger.node WHERE name = 'lv-1'") == 1
    assert statuses(await commit(PostgresLedger(pool), [claim("lv-1", uuid4())])) == ["parked"]
    assert await status(pool, second.command.id) == "parked"
    assert await differences(pool) == []


async def test_who_answers_what_was_parked_for_a_node_that_has_come_since_begins_again(pool: asyncpg.Pool) -> None:
    parked = await park(pool)
    ledger, other = PostgresLedger(pool), PostgresLedger(pool)
    await commit(ledger, [item("node.remove", "lv-1", force=True)])

    async def be_late() -> None:
        async with ledger.transaction() as transaction:
            loaded, changes = await load(transaction, parked)
            await commit(other, [put()])
            await transaction.write(loaded, changes)

    with pytest.raises(LedgerConflict):
        await be_late()
    assert statuses(await commit(ledger, [parked])) == ["applied"]
    assert await differences(pool) == []


async def test_who_puts_a_node_again_waits_for_what_is_just_being_answered(pool: asyncpg.Pool) -> None:
    parked = await park(pool)
    ledger, other = PostgresLedger(pool), PostgresLedger(pool)
    await commit(ledger, [item("node.remove", "lv-1", force=True)])
    async with ledger.transaction(locking=True) as transaction:
        loaded, changes = await load(transaction, parked)
        await transaction.write(loaded, changes)
        putting = asyncio.create_task(commit(other, [put()]))
        await until_somebody_waits(pool)
    assert statuses(await putting) == ["applied"]
    assert await differences(pool) == []


async def until_somebody_waits(pool: asyncpg.Pool) -> None:
    locked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    waits = 0
    async with asyncio.timeout(30):
        while not waits:
            await asyncio.sleep(0.01)
            waits = await pool.fetchval(locked)


def parking() -> tuple[Any, ...]:
    """The statement that parks a command of the node, with what it takes."""
    now = datetime.now(UTC)
    return bound(
        "park", commands=parked_columns([Parked("lv-1", UUID(int=1), b"", NO_REPLY, None, now, True, "")], now)
    )


@pytest.fixture
async def idle(pool: asyncpg.Pool) -> asyncpg.Pool:
    """A node that is asked while nothing is parked."""
    await pool.execute("INSERT INTO nodeledger.probe VALUES ('lv-1', 0, now() - interval '1 s')")
    return pool


async def test_a_node_is_not_forgotten_while_somebody_parks(idle: asyncpg.Pool) -> None:
    ledger = PostgresLedger(idle)
    async with idle.acquire() as connection, connection.transaction():
        await connection.execute(*parking())
        await ledger.forget_probes()
    assert await ledger.due_probes(9, least=1, most=9) == ["lv-1"]


async def test_who_parks_while_a_node_is_forgotten_has_it_asked_all_the_same(idle: asyncpg.Pool) -> None:
    async with idle.acquire() as forgetting, forgetting.transaction():
        rows = await forgetting.fetch(statement("idle_probes"))
        parked = asyncio.create_task(idle.execute(*parking()))
        await until_somebody_waits(idle)
        await forgetting.execute(statement("forget_probes"), [row["node"] for row in rows])
    await parked
    assert await PostgresLedger(idle).due_probes(9, least=1, most=9) == ["lv-1"]


async def test_idle_nodes_are_forgotten(idle: asyncpg.Pool) -> None:
    await PostgresLedger(idle).forget_probes()
    assert await idle.fetchval("SELECT count(*) FROM nodeledger.probe") == 0
