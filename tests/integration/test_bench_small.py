from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE
from pathlib import Path

import asyncpg
import pytest

from deploy.lib.stack import Stack
from tests.integration.cli_harness import PROGRAM, Ended, Shell, as_lines, put, shell, worker
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COMMANDS = 800
DEADLINE_SECONDS = 240
SMALL = ("--commands", str(COMMANDS), "--repeats", "1", "--json")


async def bench(operator: Shell, *arguments: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "bench", *arguments, env=operator.environment, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def counted(database: Database, query: str) -> int:
    connection = await asyncpg.connect(database.worker_url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def test_every_claim_is_counted_once_and_nothing_but_history_is_left(
    stack: Stack, database: Database, vhost: Vhost
) -> None:
    operator = shell(database, vhost)
    ended = await bench(operator, "--scenario", "claims-100", "--scenario", "statements", *SMALL)
    assert ended.status == 0, ended.err
    (scenario,) = ended.document["scenarios"]
    assert set(scenario["sides"]) == {"loop", "worker", "plain worker"}
    for name, side in scenario["sides"].items():
        assert side["commands"] == COMMANDS // (4 if name == "plain worker" else 1)
        assert side["rate"]["median"] > 0
        assert side["cpu_microseconds"]["median"] > 0
    assert scenario["sides"]["plain worker"]["commits_per_command"]["median"] == pytest.approx(1.0, abs=0.2)
    assert scenario["sides"]["worker"]["commits_per_command"]["median"] < 0.5
    assert {found["per_transaction"] for found in ended.document["statements"]} == {2.0}
    assert ended.document["differences"] == 0

    claimed = "SELECT count(*) FROM nodeledger.outcome_view WHERE kind = 'claim' AND status = 'applied'"
    charged = "SELECT count(*) FROM nodeledger.entry_view WHERE kind = 'claim' AND resource = 'vcpus'"
    runs = 1 + 1 + 3  # warmed up and measured; and for the statements warmed up, small batches and large ones
    assert await counted(database, claimed) == await counted(database, charged) == runs * COMMANDS
    assert await counted(database, "SELECT count(*) FROM nodeledger.node_status") == 0
    assert await counted(database, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'nodeledger_bench%'") == 0
    assert (await operator.run("verify")).status == 0
    assert "bench" not in stack.rabbitmq.control("list_queues", "--vhost", vhost.name, "name")


async def test_an_installation_in_use_is_left_alone(database: Database, vhost: Vhost, tmp_path: Path) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        ended = await bench(operator, "--quick")
        assert (ended.status, "is alive" in ended.err) == (1, True), ended.err
    assert (await operator.run("send", "-", text=as_lines([put("cn-1")]))).status == 0
    ended = await bench(operator, "--quick")
    assert (ended.status, "holds 1 commands" in ended.err) == (1, True), ended.err
