from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.lib.stack import Stack
from tests.driver.run import pool
from tests.driver.workload import Shape
from tests.faults.cluster import three_nodes
from tests.faults.trouble import run_through
from tests.integration.cli_harness import shell
from tests.servers import Database, Vhost, stack_folder

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


async def test_a_cluster_that_loses_the_node_which_leads_every_queue_loses_no_command(
    stack: Stack, database: Database, tmp_path: Path
) -> None:
    with stack_folder() as folder:
        async with three_nodes(stack, folder) as members:
            first, *_, last = members
            await asyncio.to_thread(last.add_vhost, "cluster")
            addresses = " ".join(member.url("cluster") for member in members)
            operator = shell(database).having(amqp_url=addresses)
            applied = await operator.run("topology", "apply")  # through the first node, which then leads
            assert applied.status == 0, applied.err
            around = replace(stack, rabbitmq=last)
            vhost = Vhost("cluster", last.url("cluster"))

            async def kill() -> None:
                await asyncio.sleep(3)
                await asyncio.to_thread(first.kill)

            async with pool(around, vhost, database, tmp_path, 2, amqp_url=addresses) as run:
                report = await run_through(run, Shape(seed=13, commands=1500, nodes=30, phases=1), 6, kill)
                assert not report.faults, report.figures
                checked = await operator.run("topology", "check")
                assert checked.status == 0, checked.err  # past the dead node, which its addresses name first
