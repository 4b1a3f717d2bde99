from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from tests.integration.ledger_seed import PINNED, seed
from tests.servers import Database
from worker.ledger.errors import is_conflict, is_transient
from worker.ledger.pool import connect_pool

pytestmark = pytest.mark.integration

LOCK = "SELECT FROM nodeledger.node WHERE name = $1 FOR UPDATE"


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    await seed(database.worker_url)
    made = await connect_pool(database.worker_url, min_size=0, max_size=4)
    yield made
    made.terminate()


@pytest.fixture
async def superuser(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.superuser_url)
    yield connection
    await connection.close()


async def terminated(pool: asyncpg.Pool, superuser: asyncpg.Connection) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await superuser.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        await connection.execute("SELECT 1")


async def terminated_while_committing(pool: asyncpg.Pool, superuser: asyncpg.Connection) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE nodeledger.node SET generation = generation + 1")
        await superuser.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())


async def waited_too_long_for_a_lock(pool: asyncpg.Pool, superuser: asyncpg.Connection) -> None:
    async with superuser.transaction(), pool.acquire() as connection, connection.transaction():
        await superuser.execute(LOCK, "cn-1")
        await connection.execute("SET LOCAL lock_timeout = '20ms'")
        await connection.execute(LOCK, "cn-1")


async def ran_too_long(pool: asyncpg.Pool, _: asyncpg.Connection) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = '20ms'")
        await connection.execute("SELECT pg_sleep(60)")


async def paused_in_a_transaction(pool: asyncpg.Pool, _: asyncpg.Connection) -> None:
    gone = asyncio.Event()
    async with pool.acquire() as connection:
        connection.add_termination_listener(lambda _: gone.set())
        async with connection.transaction():
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '20ms'")
            await asyncio.wait_for(gone.wait(), 10)
            await connection.execute("SELECT 1")


async def deadlocked(pool: asyncpg.Pool, _: asyncpg.Connection) -> None:
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK, first)
            await both_hold_one.wait()
            await connection.execute(LOCK, second)

    await asyncio.gather(lock("cn-1", "cn-2"), lock("cn-2", "cn-1"))


async def read_only(pool: asyncpg.Pool, _: asyncpg.Connection) -> None:
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        await connection.execute("DELETE FROM nodeledger.attempt")


async def without_a_privilege(pool: asyncpg.Pool, superuser: asyncpg.Connection) -> None:
    await superuser.execute("REVOKE SELECT ON nodeledger.node FROM nodeledger_worker")
    await pool.fetch("SELECT FROM nodeledger.node")


async def before_a_migration(pool: asyncpg.Pool, _: asyncpg.Connection) -> None:
    await pool.fetch("SELECT FROM nodeledger.not_there_yet")


Fault = Callable[[asyncpg.Pool, asyncpg.Connection], Awaitable[None]]


@pytest.mark.parametrize(
    "fault",
    [
        terminated,
        terminated_while_committing,
        waited_too_long_for_a_lock,
        ran_too_long,
        paused_in_a_transaction,
        deadlocked,
        read_only,
        without_a_privilege,
        before_a_migration,
    ],
)
async def test_what_the_world_does_to_a_batch_is_worth_another_attempt(
    pool: asyncpg.Pool, superuser: asyncpg.Connection, fault: Fault
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is_transient is for
        await fault(pool, superuser)
    assert is_transient(caught.value), repr(caught.value)


async def test_too_many_connections_are_worth_another_attempt(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
    with pytest.raises(asyncpg.TooManyConnectionsError) as caught:
        await asyncpg.connect(database.worker_url)
    assert is_transient(caught.value)


@pytest.mark.parametrize(
    ("again", "conflicts"),
    [
        ("INSERT INTO nodeledger.node (name, generation) VALUES ('cn-1', 1)", True),
        (f"INSERT INTO nodeledger.instance (id, version) VALUES ('{PINNED}', 1)", True),
        ("INSERT INTO nodeledger.pinned_cpu SELECT * FROM nodeledger.pinned_cpu", False),
        ("UPDATE nodeledger.node SET used = '{-1,0}' WHERE name = 'cn-2'", False),
    ],
)
async def test_only_a_row_that_two_made_at_once_is_a_conflict(pool: asyncpg.Pool, again: str, conflicts: bool) -> None:  # noqa: FBT001 - an expectation
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as caught:
        await pool.execute(again)
    assert is_conflict(caught.value) is conflicts
    assert not is_transient(caught.value)
