from __future__ import annotations

from pathlib import Path

import pytest

from deploy.lib.stack import Stack
from tests.driver.client import client_run
from tests.driver.faults import Plan
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


async def test_a_client_on_a_bad_network_that_dies_and_comes_back_has_each_command_answered_once_and_in_order(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    plan = Plan(seconds=15, kills=2, broker_restarts=1, cuts=6)
    report = await client_run(stack, vhost, database, tmp_path, plan=plan, commands=4000, deaths=1)
    assert not report.faults, report.figures
