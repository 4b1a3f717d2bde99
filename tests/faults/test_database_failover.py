from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from deploy.lib.postgres import DATABASE, LOGINS, SUPERUSER
from deploy.lib.stack import Stack
from tests.driver.run import pool
from tests.driver.workload import Shape
from tests.faults.replica import Pair, primary_and_replica
from tests.faults.trouble import run_through
from tests.servers import Database, Vhost, stack_folder
from worker.ledger.migrate import upgrade

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


async def _database(pair: Pair) -> Database:
    owner = await asyncpg.connect(pair.url("nodeledger_owner", DATABASE))
    await upgrade(owner)
    await owner.close()
    owner_url, worker_url, reader_url = (pair.url(name, DATABASE) for name in LOGINS)
    return Database(DATABASE, owner_url, worker_url, reader_url, pair.replica.url(SUPERUSER))


@pytest.mark.parametrize("silent", [False, True], ids=["killed", "silent"])
async def test_when_the_primary_is_lost_the_pool_goes_on_at_the_promoted_replica(
    stack: Stack, vhost: Vhost, tmp_path: Path, *, silent: bool
) -> None:
    with stack_folder() as folder:
        async with primary_and_replica(stack, folder) as pair:
            database = await _database(pair)

            async def fail_over() -> None:
                await asyncio.sleep(3)
                if silent:
                    pair.freeze_primary()
                else:
                    pair.kill_primary()
                await pair.promote()

            command, connect = ("3", "2") if silent else ("40", "10")
            async with pool(
                stack,
                vhost,
                database,
                tmp_path,
                2,
                database_url=database.worker_url,
                database_command_seconds=command,
                database_connect_seconds=connect,
            ) as run:
                shape = Shape(seed=12, commands=1500, nodes=30, phases=1)
                report = await run_through(run, shape, 6, fail_over)
            assert not report.faults, report.figures
