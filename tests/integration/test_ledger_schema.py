from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import asyncpg
import pytest

from deploy.lib.postgres import program_folders
from deploy.lib.stack import Stack
from tests.servers import Database
from worker.ledger import migrate
from worker.ledger.migrate import SchemaError, check, migrations, upgrade
from worker.ledger.pool import connect_pool
from worker.ledger.roles import WORKER_SETTINGS

pytestmark = pytest.mark.integration

CONTRACT = {
    "node_usage": "node text, resource text, total bigint, reserved bigint, capacity bigint, used bigint, free bigint",
    "node_status": "node text, hypervisor text, enabled boolean, reachable boolean, generation bigint, "
    "observed_at timestamp with time zone, instances bigint, failed_builds bigint, labels jsonb",
    "allocation_view": "instance uuid, node text, role text, project text, user_id text, vcpus bigint, pcpus bigint, "
    "memory_mib bigint, disk_mib bigint, custom jsonb, assignment jsonb, claimed_at timestamp with time zone, "
    "lease_expires_at timestamp with time zone",
    "pinned_cpu_view": "node text, cpu integer, instance uuid",
    "device_view": "node text, address text, vendor text, product text, type text, cell integer, parent text, "
    "state text, instance uuid",
    "entry_view": "seq bigint, at timestamp with time zone, node text, instance uuid, command uuid, kind text, "
    "resource text, delta bigint, used_after bigint",
    "outcome_view": "command uuid, kind text, status text, node text, instance uuid, "
    "received_at timestamp with time zone, at timestamp with time zone, codes text[], outcome jsonb",
    "dead_letter_view": "id bigint, reason text, detail text, node text, kind text, command uuid, "
    "first_seen timestamp with time zone, attempts bigint, state text",
    "drift_view": "node text, instance uuid, kind text, detail text, ledger jsonb, hypervisor jsonb, "
    "first_seen timestamp with time zone, last_seen timestamp with time zone, resolved_at timestamp with time zone, "
    "id bigint",
    "node_load": "node text, at timestamp with time zone, user_percent bigint, kernel_percent bigint, "
    "iowait_percent bigint, idle_percent bigint, memory_used_mib bigint",
    "project_usage": "project text, user_id text, resource text, used bigint",
}

COLUMNS = """
SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, NULL), ', ' ORDER BY a.attnum)
FROM pg_attribute AS a WHERE a.attrelid = $1::text::regclass AND a.attnum > 0
"""


SCHEMA = Path(migrate.__file__).parent / "schema.sql"

UNCOMMENTED = """
SELECT c.relname || coalesce('.' || a.attname, '') AS name
FROM pg_class AS c
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND c.relkind = 'v'
WHERE c.relnamespace = 'nodeledger'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname !~ '^entry_\\d'
    AND (
        obj_description(c.oid, 'pg_class') IS NULL
        OR (a.attname IS NOT NULL AND col_description(c.oid, a.attnum) IS NULL)
    )
"""


async def test_a_database_is_upgraded_once_however_many_upgrade_it(empty_database: Database) -> None:
    owners = [await asyncpg.connect(empty_database.owner_url) for _ in range(3)]
    applied = await asyncio.gather(*map(upgrade, owners))
    assert sorted(name for names in applied for name in names) == [step.name for step in migrations()]
    assert await upgrade(owners[0]) == []
    assert await check(owners[0]) == []
    for owner in owners:
        await owner.close()


async def test_an_empty_database_is_reported_as_such(empty_database: Database) -> None:
    owner = await asyncpg.connect(empty_database.owner_url)
    assert await check(owner) == ["the schema is not there: run `nodeledger db upgrade`"]
    await owner.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE nodeledger.migration SET checksum = 'x' WHERE name = '0001_tables'", "with another text"),
        ("INSERT INTO nodeledger.migration VALUES ('9999_later', 'x')", "by a newer version"),
    ],
)
async def test_a_schema_of_another_version_is_refused(database: Database, change: str, said: str) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(change)
    assert said in "".join(await check(owner))
    with pytest.raises(SchemaError, match=said):
        await upgrade(owner)
    await owner.close()


@pytest.mark.parametrize(
    "change",
    [
        "REVOKE SELECT ON nodeledger.node_usage FROM nodeledger_reader",
        "REVOKE USAGE ON SCHEMA nodeledger FROM nodeledger_worker",
        "GRANT DELETE ON nodeledger.entry TO nodeledger_worker",
        "GRANT SELECT ON nodeledger.command TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION nodeledger.purge_commands TO PUBLIC",
    ],
)
async def test_privileges_that_differ_are_found_and_put_right(database: Database, change: str) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(change)
    assert len(await check(owner)) == 1
    await upgrade(owner)
    assert await check(owner) == []
    await owner.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM nodeledger.entry",
        "UPDATE nodeledger.entry SET deltas = '{}'",
        "TRUNCATE nodeledger.entry",
        "DELETE FROM nodeledger.command",
        "DELETE FROM nodeledger.instance",
        "DELETE FROM nodeledger.dead_letter",
        "UPDATE nodeledger.dead_letter_action SET actor = 'x'",
        "DELETE FROM nodeledger.migration",
        "DROP TABLE nodeledger.entry",
        "ALTER TABLE nodeledger.node DROP CONSTRAINT use_is_never_negative",
        "CREATE TABLE nodeledger.mine (id integer)",
        "DELETE FROM nodeledger.entry_rest",
    ],
)
async def test_the_worker_can_neither_take_back_an_entry_nor_change_the_schema(
    database: Database, statement: str
) -> None:
    worker = await asyncpg.connect(database.worker_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await worker.execute(statement)
    await worker.close()


async def test_the_reader_sees_views_alone(database: Database) -> None:
    reader = await asyncpg.connect(database.reader_url)
    for view in CONTRACT:
        await reader.fetch(f"SELECT * FROM nodeledger.{view}")
    for table in ("node", "command", "entry", "dead_letter", "parked_command"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch(f"SELECT * FROM nodeledger.{table}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await reader.fetch("SELECT nodeledger.purge_commands(now() - interval '1 year', 1)")
    await reader.close()


@pytest.mark.parametrize("view", CONTRACT)
async def test_a_view_has_the_columns_of_the_contract(database: Database, view: str) -> None:
    reader = await asyncpg.connect(database.reader_url)
    assert (await reader.fetchval(COLUMNS, f"nodeledger.{view}")).startswith(CONTRACT[view])
    await reader.close()


def dump(stack: Stack, name: str, version: int) -> list[str]:
    """A database's schema as its server's own `pg_dump` writes it, without the ledger's months."""
    program = next(path for folder in program_folders() if f") {version}." in about(path := folder / "pg_dump"))
    url = stack.postgres.url("postgres", name)
    options = ["--schema-only", "--no-owner", "--no-privileges", "--exclude-table=nodeledger.entry_2*", url]
    said = subprocess.run([program, *options], text=True, capture_output=True, check=True).stdout
    return [line for line in said.splitlines() if not line.startswith((r"\restrict", r"\unrestrict"))]


def about(program: Path) -> str:
    return subprocess.run([program, "--version"], text=True, capture_output=True, check=True).stdout


async def test_the_schema_to_read_is_the_one_that_the_migrations_make(
    stack: Stack, database: Database, empty_database: Database
) -> None:
    owner = await asyncpg.connect(empty_database.owner_url)
    await owner.execute(SCHEMA.read_text("utf-8"))
    version = owner.get_server_version().major
    await owner.close()
    assert dump(stack, empty_database.name, version) == dump(stack, database.name, version)


async def test_every_view_and_each_of_its_columns_and_every_table_says_what_it_is(database: Database) -> None:
    reader = await asyncpg.connect(database.reader_url)
    assert [row["name"] for row in await reader.fetch(UNCOMMENTED)] == []
    await reader.close()


async def test_a_worker_has_its_settings_though_the_owner_could_not_give_them(database: Database) -> None:
    superuser = await asyncpg.connect(database.superuser_url)
    await superuser.execute("ALTER ROLE nodeledger_worker RESET ALL")
    pools = await asyncio.gather(*(connect_pool(database.worker_url, max_size=2) for _ in range(3)))
    for pool in pools:
        assert {name: await pool.fetchval("SELECT current_setting($1)", name) for name in WORKER_SETTINGS} == (
            WORKER_SETTINGS
        )
        await pool.close()
    await superuser.close()


async def test_a_connection_goes_back_to_the_pool_without_a_query(database: Database) -> None:
    pool = await connect_pool(database.worker_url, max_size=1)
    async with pool.acquire() as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")
    last = "SELECT query FROM pg_stat_activity WHERE pid = $1"
    watcher = await asyncpg.connect(database.superuser_url)
    assert await watcher.fetchval(last, before) == "SELECT pg_backend_pid()"
    await watcher.close()
    await pool.close()
