"""How much memory a worker needs before a long backlog. The figures are printed with ``pytest -m bench -s``.

``NODELEDGER_BENCH_BACKLOG`` is the number of commands that wait,
``NODELEDGER_BENCH_SECONDS`` how long the worker is watched while it works them off.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from tests.driver.bulk import publish_all
from tests.driver.pool import Worker
from tests.driver.steady import claim, put
from tests.integration.cli_harness import shell
from tests.servers import Database, Vhost, new_database, new_vhost, temporary_stack

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

BACKLOG: Final = int(os.environ.get("NODELEDGER_BENCH_BACKLOG", "1000000"))
SECONDS: Final = float(os.environ.get("NODELEDGER_BENCH_SECONDS", "90"))
NODES: Final = 500
SAMPLE_SECONDS: Final = 0.2
LIMIT_MIB: Final = 300


def backlog() -> Iterator[dict[str, Any]]:
    """The nodes, then small claims on all of them in turn."""
    nodes = [f"cn-{number:04d}" for number in range(NODES)]
    yield from map(put, nodes)
    for number in range(BACKLOG):
        yield claim(nodes[number % NODES])


async def samples(worker: Worker) -> list[int]:
    """The worker's resident memory in MiB, over and over while it works."""
    found: list[int] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert not worker.ended, worker.log.read_text()
        found.append(worker.resident_mib)
        await asyncio.sleep(SAMPLE_SECONDS)
    return found


async def answered(database: Database) -> int:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM nodeledger.command WHERE kind = 'claim'"))
    finally:
        await connection.close()


async def measure(vhost: Vhost, database: Database, folder: Path) -> tuple[int, list[int], int]:
    """How many commands waited, the memory of the worker over time, and how many claims it has answered."""
    operator = shell(database, vhost)
    applied = await operator.run("topology", "apply")
    assert applied.status == 0, applied.err
    began = time.monotonic()
    waiting = await publish_all(vhost.url, backlog())
    sys.stdout.write(f"\n{waiting} commands published in {time.monotonic() - began:.0f} s\n")
    worker = Worker("worker", folder, operator.environment)
    await worker.start()
    try:
        found = await samples(worker)
    finally:
        await worker.kill()
    return waiting, found, await answered(database)


async def test_a_worker_before_a_backlog_of_a_million_commands_needs_less_than_300_mib(tmp_path: Path) -> None:
    with temporary_stack() as stack, new_vhost(stack) as vhost:
        async with new_database(stack) as database:
            waiting, found, done = await measure(vhost, database, tmp_path)
    peak, last = max(found), found[-1]
    sys.stdout.write(
        f"of {waiting} commands, {done} answered in {SECONDS:.0f} s: peak {peak} MiB, at the end {last} MiB\n"
    )
    assert done > NODES, "it was not at work"
    assert peak < LIMIT_MIB
