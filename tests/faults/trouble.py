"""A workload through a pool while something of the test's own choosing happens to its servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tests.driver.run import Report, Run, finish
from tests.driver.workload import Shape, Workload

ANSWER_SECONDS: Final = 120


async def run_through(run: Run, shape: Shape, seconds: float, trouble: Callable[[], Awaitable[None]]) -> Report:
    """Send the workload, spread over about ``seconds``, have the trouble meanwhile, and judge."""
    work, report = Workload(shape), Report()
    phases = work.phases()
    await run.send(next(phases), 0, ANSWER_SECONDS)
    rate = shape.commands * (1 + shape.duplicates) / seconds
    having = asyncio.ensure_future(trouble())
    try:
        for phase in phases:
            missing = await run.send(phase, rate, ANSWER_SECONDS)
            if missing:
                report.faults.append(f"{len(missing)} commands were not answered, such as {missing[:3]}")
                break
        await having
    finally:
        having.cancel()
    await finish(run, work, report)
    return report


def words(run: Run) -> str:
    """What all workers have logged so far."""
    return "".join(worker.log.read_text() for worker in run.workers)
