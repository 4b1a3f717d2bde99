from __future__ import annotations

from pathlib import Path

import pytest
from yarl import URL

from deploy.lib.stack import Stack
from tests.driver.run import pool
from tests.driver.workload import Shape
from tests.faults.committing import CommitCutter
from tests.faults.trouble import run_through
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


async def test_connections_cut_right_behind_a_commit_lose_nothing_and_do_nothing_twice(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    async with CommitCutter(stack.postgres.port, every=5) as cutter:
        address = str(URL(database.worker_url).with_port(cutter.port))
        async with pool(stack, vhost, database, tmp_path, 2, database_url=address) as run:
            report = await run_through(run, Shape(seed=15, commands=1500, nodes=30, phases=1), 6, cutter.busy)
        assert not report.faults, report.figures
