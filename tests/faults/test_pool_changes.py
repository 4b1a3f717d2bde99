"""How fast shards change hands, and that nothing is lost or reordered by it. ``-s`` prints the times."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from deploy.lib.stack import Stack
from tests.driver.pool import Worker
from tests.driver.run import Run, pool
from tests.driver.steady import Steady, claim, claim_faults, one_node_a_shard, put
from tests.driver.traffic import body_of, publish
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SHARDS: Final = 16
EVERY_SECONDS: Final = 0.05
TAKEOVER_SECONDS: Final = 2.0
FAIR_SHARE_SECONDS: Final = 10.0
SLOW_MACHINE: Final = 3.0
"""How much longer it may take where many others run."""


def tell(what: str, seconds: float) -> None:
    sys.stdout.write(f"\n{what}: {seconds:.2f} s\n")


async def shards_held(worker: Worker) -> int:
    """How many shards the broker serves to a worker, as its metrics say."""
    port = (worker.folder / f"{worker.name}.port").read_text().strip()
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
        text = await answer.text()
    line = next(line for line in text.splitlines() if line.startswith("nodeledger_shards_held "))
    return int(float(line.split()[1]))


async def until_shared(run: Run, seconds: float) -> None:
    """Wait until each worker is served its even share of the shards."""
    share = SHARDS // len(run.workers)
    async with asyncio.timeout(seconds):
        while True:  # other processes: there is nothing to wait on
            if {await shards_held(worker) for worker in run.workers} == {share}:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def working(
    stack: Stack, vhost: Vhost, database: Database, folder: Path, workers: int
) -> AsyncIterator[tuple[Run, Steady]]:
    """Workers that speak to their servers without a proxy, and steady traffic to every shard."""
    own = {"amqp_url": vhost.url, "database_url": database.worker_url}
    async with pool(stack, vhost, database, folder, workers, **own) as run:
        await asyncio.gather(*(worker.ready() for worker in run.workers))
        async with Steady(run, one_node_a_shard(SHARDS), EVERY_SECONDS) as traffic:
            await until_shared(run, 30)
            yield run, traffic


async def nothing_lost(run: Run, traffic: Steady) -> None:
    assert await traffic.all_answered(30)
    faults = await claim_faults(run, [(one, node) for _, one, node in traffic.sent])
    assert not faults


async def test_the_shards_of_a_killed_worker_are_served_by_another_within_two_seconds(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    async with working(stack, vhost, database, tmp_path, 2) as (run, traffic):
        moment = time.monotonic()
        await run.workers[0].kill()
        slowest = max((await traffic.served_since(moment, 30)).values())
        tell("all shards served after a SIGKILL", slowest)
        await nothing_lost(run, traffic)
        assert slowest < SLOW_MACHINE * TAKEOVER_SECONDS


async def test_a_worker_that_joins_has_its_fair_share_within_ten_seconds(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    async with working(stack, vhost, database, tmp_path, 1) as (run, traffic):
        first = run.workers[0]
        joining = Worker("worker-joining", tmp_path, first.environment, first.program)
        moment = time.monotonic()
        await joining.start()
        try:
            await joining.ready()
            ready = time.monotonic() - moment
            run.workers.append(joining)
            await until_shared(run, 60)
            shared = time.monotonic() - moment
            tell("fair share of a joining worker, from the start of its process", shared)
            tell("of which until it was ready", ready)
            await nothing_lost(run, traffic)
            # How long a process takes to start is the machine's doing.
            assert shared - ready < SLOW_MACHINE * FAIR_SHARE_SECONDS
        finally:
            await joining.kill()


async def test_a_worker_told_to_stop_under_load_hands_over_in_order_and_exits_0(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    async with working(stack, vhost, database, tmp_path, 2) as (run, traffic):
        nodes = [f"busy-{number}" for number in range(48)]
        claims = [claim(nodes[number % len(nodes)]) for number in range(3000)]
        mine, finals = {one["id"] for one in claims}, run.listener.finals
        sending = asyncio.create_task(publish(run.vhost.url, [body_of(one) for one in [*map(put, nodes), *claims]]))
        assert await run.listener.until(lambda: len(mine & finals.keys()) > 500, 60)
        moment = time.monotonic()
        status = await run.workers[0].stop()
        tell("a SIGTERM under load, until the process ended", time.monotonic() - moment)
        tell("until all shards were served by the other", max((await traffic.served_since(moment, 30)).values()))
        await sending
        assert await run.listener.until(lambda: mine <= finals.keys(), 60)
        assert await traffic.all_answered(30)
        both = [*((one["id"], one["node"]) for one in claims), *((one, node) for _, one, node in traffic.sent)]
        assert (status, await claim_faults(run, both)) == (0, [])
        assert sum(at > moment and one in mine for at, one, _, _ in run.listener.heard) > 1000, "it was not under load"
