from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from yarl import URL

from deploy.lib.stack import Stack
from tests.driver.run import pool
from tests.driver.workload import Shape
from tests.faults.pgbouncer import PROGRAM, pgbouncer
from tests.faults.trouble import run_through
from tests.servers import Database, Vhost

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not PROGRAM.exists(), reason="PgBouncer is not installed"),
]


async def test_the_whole_road_works_through_a_pgbouncer_that_is_restarted_and_killed(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    async with pgbouncer(stack) as bouncer:
        before = replace(stack, postgres=replace(stack.postgres, port=bouncer.port))

        async def restarts() -> None:
            for immediate in (True, False):
                await asyncio.sleep(3)
                await asyncio.to_thread(bouncer.stop, immediate=immediate)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(bouncer.start)

        async with pool(before, vhost, database, tmp_path, 2, database_statement_cache="false") as run:
            report = await run_through(run, Shape(seed=11, commands=2500, nodes=40, phases=1), 9, restarts)
            assert not report.faults, report.figures
            pooled = str(URL(database.worker_url).with_port(bouncer.port))
            operator = run.operator.having(database_url=pooled, database_statement_cache="false")
            assert (await operator.run("verify")).status == 0
