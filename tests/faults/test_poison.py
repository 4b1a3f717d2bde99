from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from deploy.lib.stack import Stack
from tests.driver.pool import Worker
from tests.driver.run import Run, pool_of
from tests.driver.traffic import body_of, publish
from tests.integration.cli_harness import INVENTORY
from tests.servers import Database, Vhost

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POISONED = (sys.executable, str(Path(__file__).with_name("poisoned_worker.py")))
NEIGHBOURS = 60
NODES = ("cn-1", "cn-2")


def stamped(kind: str, node: str, **fields: Any) -> dict[str, Any]:
    return {"version": 1, "id": str(uuid4()), "kind": kind, "node": node, "issued_at": "2026-01-01T00:00:00Z", **fields}


def small_claim(node: str, project: str) -> dict[str, Any]:
    resources = {"vcpus": 1, "memory_mib": 1}
    return stamped("claim", node, instance=str(uuid4()), project=project, resources=resources)


async def tended(worker: Worker) -> None:
    """What a supervisor does: start again what ended."""
    while True:
        assert worker.process is not None
        await worker.process.wait()
        await worker.start()


async def dead_reasons(run: Run) -> dict[str, str]:
    connection = await asyncpg.connect(run.database.superuser_url)
    try:
        rows = await connection.fetch(
            "SELECT command::text, reason || ': ' || detail AS why FROM nodeledger.dead_letter"
        )
        return {row["command"]: row["why"] for row in rows}
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("how", "says"),
    [("raise", "ZeroDivisionError"), ("kill", "its worker died 3 times"), ("hang", "its worker died 3 times")],
)
async def test_a_command_that_breaks_the_code_is_put_away_alone_and_its_neighbours_apply_in_order(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path, how: str, says: str
) -> None:
    async with pool_of(POISONED, stack, vhost, database, tmp_path, 1, {"hang_seconds": "2"}) as run:
        tending = asyncio.create_task(tended(run.workers[0]))
        try:
            policy = {"ratios": {"vcpus": "100.0"}}
            commands = [stamped("node.put", node, inventory=INVENTORY, policy=policy) for node in NODES]
            commands += [small_claim(NODES[number % 2], "acme") for number in range(NEIGHBOURS)]
            poison = small_claim(NODES[0], how)
            commands.insert(len(commands) // 2, poison)
            await publish(vhost.url, [body_of(command) for command in commands])
            good = {command["id"] for command in commands} - {poison["id"]}
            assert await run.listener.until(lambda: good <= run.listener.finals.keys(), 120)
            assert await run.listener.until(
                lambda: any(one == poison["id"] and status == "dead" for _, one, status, _ in run.listener.heard), 60
            )
            async with asyncio.timeout(30):
                while poison["id"] not in (found := await dead_reasons(run)):  # noqa: ASYNC110 - the archive follows the queue
                    await asyncio.sleep(0.05)
        finally:
            tending.cancel()
        assert list(found) == [poison["id"]]
        assert found[poison["id"]].startswith("poison: ")
        assert says in found[poison["id"]]
        for node in NODES:
            sent = [command["id"] for command in commands if command["node"] == node and command is not poison]
            answered = list(dict.fromkeys(one for _, one, _, where in run.listener.heard if where == node))
            assert [one for one in answered if one != poison["id"]] == sent
        assert all(len(texts) == 1 for texts in run.listener.finals.values())
