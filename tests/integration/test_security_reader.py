"""What somebody with the reader's password can do to those who work: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from tests.servers import Database
from worker.ledger import migrate
from worker.ledger.members import Members
from worker.ledger.pool import connect_pool
from worker.ledger.statements import statement as sql_statement

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

FILLING = (
    "SELECT lo_from_bytea(0, decode(repeat('00', 1024), 'hex'))",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_put(1, 0, 'x')",
    "SELECT pg_advisory_lock(n) FROM generate_series(1, 10) AS n",
    "SELECT pg_advisory_xact_lock_shared(1)",
    "SELECT pg_try_advisory_lock(1, 2)",
    "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1024))",
    "CREATE TEMP TABLE x ()",
    "CREATE TABLE public.x ()",
    "SET temp_file_limit = -1",
    "INSERT INTO nodeledger.node (name) VALUES ('x')",
    "LOCK TABLE nodeledger.shard IN ACCESS SHARE MODE",
    "LOCK TABLE nodeledger.migration IN ACCESS SHARE MODE",
    "SELECT FROM nodeledger.node_status FOR UPDATE",
)


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A reader that lifts the one restriction it may lift."""
    made = await asyncpg.connect(database.reader_url)
    await made.execute("SET default_transaction_read_only = off")
    yield made
    await made.close()


@pytest.mark.parametrize("statement", FILLING)
async def test_a_reader_fills_neither_the_disk_nor_the_lock_table(reader: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with reader.transaction():
            await reader.execute(statement)


async def test_a_readers_transactions_are_read_only_unless_it_says_otherwise(database: Database) -> None:
    connection = await asyncpg.connect(database.reader_url)
    assert await connection.fetchval("SHOW transaction_read_only") == "on"
    assert await connection.fetchval("SHOW temp_file_limit") == "1GB"
    await connection.close()


WIDENED = (
    ("GRANT EXECUTE ON FUNCTION lo_create TO PUBLIC", "deploy/database-roles"),
    ("GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) TO PUBLIC", "deploy/database-roles"),
    ("GRANT TEMP ON DATABASE {database} TO PUBLIC", "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"),
    ("GRANT CREATE ON DATABASE {database} TO nodeledger_worker", "REVOKE CREATE ON DATABASE"),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
    ("ALTER ROLE nodeledger_reader IN DATABASE {database} SET default_transaction_read_only = off", "RESET"),
    ("ALTER ROLE nodeledger_reader SET default_transaction_read_only = off", "SET default_transaction_read_only"),
    ("ALTER ROLE nodeledger_reader RESET temp_file_limit", "SET temp_file_limit = '1GB'"),
    ("ALTER ROLE nodeledger_reader CONNECTION LIMIT -1", "CONNECTION LIMIT 20"),
    ("ALTER ROLE nodeledger_worker CREATEROLE", "ALTER ROLE nodeledger_worker NOCREATEROLE"),
    ("GRANT pg_read_all_data TO nodeledger_reader", "REVOKE pg_read_all_data FROM nodeledger_reader"),
    ("GRANT UPDATE ON nodeledger.node TO pg_monitor", "REVOKE UPDATE ON nodeledger.node FROM pg_monitor"),
)


@pytest.mark.parametrize(("widening", "remedy"), WIDENED)
async def test_a_right_that_nobody_should_have_is_told_with_what_takes_it_away(
    database: Database, widening: str, remedy: str
) -> None:
    """Within a transaction that is rolled back: roles belong to the whole server."""
    superuser = await asyncpg.connect(database.superuser_url)
    assert await migrate.check(superuser) == []
    change = superuser.transaction()
    await change.start()
    await superuser.execute(widening.format(database=database.name))
    (told,) = await migrate.check(superuser)
    await change.rollback()
    assert remedy.format(database=database.name) in told
    await superuser.close()


async def test_locks_that_anybody_may_take_hold_up_nobody(database: Database) -> None:
    """Everything a session may lock with no right but to connect, as on a server where it may still take these."""
    anybody = await asyncpg.connect(database.superuser_url)
    for key in (0x736861726473, 0x6E6F64656C656467):
        await anybody.execute("SELECT pg_advisory_lock($1)", key)
    await anybody.execute("SELECT pg_advisory_lock(hashtextextended('nodeledger.entry', 0))")
    owner = await asyncpg.connect(database.owner_url)
    async with asyncio.timeout(60), await connect_pool(database.worker_url, max_size=2) as pool:
        members = Members(pool, uuid4(), "w")
        await members.heartbeat()
        assert len(await members.assign(4)) == 4
        assert await migrate.upgrade(owner) == []
        await pool.execute(sql_statement("prepare_entry_months"), 1)
    await owner.close()
    await anybody.close()


async def test_an_upgrade_that_is_held_up_names_who_holds_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_LOCK_SECONDS", 0.05)
    holder = await asyncpg.connect(database.owner_url, server_settings={"application_name": "somebody's psql"})
    owner = await asyncpg.connect(database.owner_url)
    async with holder.transaction():
        await holder.execute("LOCK TABLE nodeledger.migration IN SHARE ROW EXCLUSIVE MODE")
        with pytest.raises(migrate.SchemaError) as held:
            await migrate.upgrade(owner)
    for part in (str(holder.get_server_pid()), "nodeledger_owner", "somebody's psql"):
        assert part in str(held.value)
    assert await migrate.upgrade(owner) == []
    await holder.close()
    await owner.close()
