"""One run: a workload through a real pool while things break, and the judgement at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import asyncpg
from yarl import URL

from deploy.lib.stack import Stack
from tests.driver.faults import Faults, Plan
from tests.driver.hosts import Hosts
from tests.driver.judge import left_over, stored_faults, unacknowledged
from tests.driver.pool import PROGRAM, Worker
from tests.driver.proxy import Proxy
from tests.driver.traffic import Listener, body_of, publish
from tests.driver.workload import Phase, Shape, Workload
from tests.integration.cli_harness import Shell, shell
from tests.servers import Database, Vhost

HEARTBEAT_SECONDS: Final = 2
PAUSE_SECONDS: Final = 7.0
"""Longer than the broker takes to miss a worker that is silent."""

_SETTLES_WITHIN_SECONDS: Final = 150.0
"""What a broker that loses its leader never confirms is sent again after 30 s, and may fare so more than once."""


@dataclass(slots=True)
class Report:
    """What a run came to; without ``faults`` it went well."""

    faults: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """A pool on given servers."""

    stack: Stack
    vhost: Vhost
    database: Database
    operator: Shell
    workers: list[Worker]
    proxies: list[Proxy]
    listener: Listener

    async def send(self, phase: Phase, per_second: float, seconds: float) -> list[str]:
        """Send a phase and wait for its outcomes; says which never came."""
        messages = [body_of(message.command, astray=message.astray) for message in phase.messages]
        await publish(self.vhost.url, messages, per_second)
        missing = set(phase.commands)

        def all_heard() -> bool:
            missing.difference_update([name for name in missing if name in self.listener.finals])
            return not missing

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not await self.listener.until(all_heard, 1):
            if all(worker.ended for worker in self.workers):
                break
        return sorted(missing)


def pool(
    stack: Stack, vhost: Vhost, database: Database, folder: Path, workers: int, **settings: str
) -> AbstractAsyncContextManager[Run]:
    """Topology, workers behind proxies, and a listener; all gone at the end."""
    return pool_of(PROGRAM, stack, vhost, database, folder, workers, settings)


@asynccontextmanager
async def pool_of(
    program: tuple[str, ...],
    stack: Stack,
    vhost: Vhost,
    database: Database,
    folder: Path,
    workers: int,
    settings: Mapping[str, str],
) -> AsyncIterator[Run]:
    """Topology, workers behind proxies unless ``settings`` give them addresses, and a listener; all gone at the end."""
    operator = shell(database, vhost)
    applied = await operator.run("topology", "apply")
    assert applied.status == 0, applied.err
    async with AsyncExitStack() as parts:
        amqp = await parts.enter_async_context(Proxy(stack.rabbitmq.port))
        postgres = await parts.enter_async_context(Proxy(stack.postgres.port))
        behind = {"heartbeat_seconds": str(HEARTBEAT_SECONDS)}
        if "amqp_url" not in settings:
            behind["amqp_url"] = str(URL(vhost.url).with_port(amqp.port))
        if "database_url" not in settings:
            behind["database_url"] = str(URL(database.worker_url).with_port(postgres.port))
        own = operator.having(**behind, **settings)
        listener = await parts.enter_async_context(Listener(vhost.url))
        stack.rabbitmq.save_queues()
        crew = [Worker(f"worker-{number}", folder, own.environment, program) for number in range(workers)]
        for worker in crew:
            parts.push_async_callback(_end, worker)
            await worker.start()
        yield Run(stack, vhost, database, operator, crew, [amqp, postgres], listener)


async def _end(worker: Worker) -> None:
    if worker.process is not None:
        await worker.kill()


async def fault_run(
    stack: Stack, vhost: Vhost, database: Database, folder: Path, *, shape: Shape, plan: Plan, workers: int
) -> Report:
    """Send a whole workload while a plan of faults is carried out, then let the pool finish, and judge."""
    work = Workload(shape)
    async with Hosts(work.hosted) as hosts:
        work.addresses = hosts.addresses
        work.judgement.reference.world.inventories = hosts.inventories
        async with pool(stack, vhost, database, folder, workers, **hosts.settings) as run:
            faults = Faults(plan, Random(shape.seed), stack, run.workers, run.proxies, hosts, PAUSE_SECONDS)
            report = await drive(run, work, plan.seconds, 300, faults.run)
            report.figures["happened"] = dict(faults.done)
    return report


async def drive(
    run: Run, work: Workload, seconds: float, answer_seconds: float, trouble: Callable[[], Awaitable[None]]
) -> Report:
    """Send a workload, spread over about ``seconds``, have the trouble meanwhile, and judge."""
    report, shape, phases = Report(), work.shape, work.phases()
    rate = shape.commands * (1 + shape.duplicates) / seconds if seconds else 0
    nodes = next(phases)
    await run.send(nodes, 0, answer_seconds)
    work.judgement.settle(nodes.commands, run.listener)
    having = asyncio.ensure_future(trouble())
    began = time.monotonic()
    try:
        for phase in phases:
            missing = await run.send(phase, rate, answer_seconds)
            work.judgement.settle(phase.commands, run.listener)
            if missing:
                report.faults.append(f"{len(missing)} commands were not answered, such as {missing[:3]}")
                break
        report.figures["seconds"] = round(time.monotonic() - began, 1)
        await having
    finally:
        having.cancel()
    await _finish(run, work, report)
    return report


async def _finish(run: Run, work: Workload, report: Report) -> None:
    """Wait until nothing is under way any more, and hold everything against the model."""
    connection = await asyncpg.connect(run.database.superuser_url)
    try:
        left = await _settled(run, connection)
        report.faults += [f"left over: {name} {count}" for name, count in left.items() if count and name != "attempts"]
        report.faults += await stored_faults(connection, work.judgement, run.listener)
        verified = await run.operator.run("verify")
        if verified.status != 0:
            report.faults.append(f"verify: {verified.out}{verified.err}")
    finally:
        await connection.close()
    heard = run.listener.heard
    report.figures |= {
        "ids": len(work.judgement.sent),
        "outcomes heard": len(heard),
        "parked": len({command for _, command, status, _ in heard if status == "parked"}),
        "astray": len(work.judgement.astray),
        "workers started": sum(worker.starts for worker in run.workers),
        "ended by themselves": [status for worker in run.workers for status in worker.ends],
        "attempts left": left["attempts"],
    }
    if any(status for worker in run.workers for status in worker.ends):
        report.faults.append("a worker ended by itself")


async def _settled(run: Run, connection: asyncpg.Connection) -> Mapping[str, int]:
    """What is left once nothing is, or when time is over."""
    deadline = time.monotonic() + _SETTLES_WITHIN_SECONDS
    while True:
        left = await left_over(connection)
        left["unacknowledged"] = await asyncio.to_thread(unacknowledged, run.stack, run.vhost.name)
        busy = {name: count for name, count in left.items() if name != "attempts"}
        if not any(busy.values()) or time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.2)
