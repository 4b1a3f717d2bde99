from __future__ import annotations

from pathlib import Path

import pytest

from deploy.lib.stack import Stack
from tests.driver.faults import Plan
from tests.driver.run import fault_run
from tests.driver.workload import Shape
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


async def test_workers_killed_over_and_over_lose_nothing_and_do_nothing_twice(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    shape, plan = Shape(seed=2, commands=2500, nodes=40, phases=1), Plan(seconds=8, kills=8)
    report = await fault_run(stack, vhost, database, tmp_path, shape=shape, plan=plan, workers=2)
    assert not report.faults, report.figures


async def test_a_pool_survives_kills_pauses_restarts_and_cut_connections_all_at_once(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    shape = Shape(seed=5, commands=3000, nodes=40, phases=2)
    plan = Plan(seconds=20, kills=4, pauses=1, broker_restarts=1, database_restarts=2, cuts=3)
    report = await fault_run(stack, vhost, database, tmp_path, shape=shape, plan=plan, workers=3)
    assert not report.faults, report.figures
