"""A workload through a pool while something of the test's own choosing happens to its servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tests.driver.run import Report, Run, drive
from tests.driver.workload import Shape, Workload

ANSWER_SECONDS: Final = 120


async def run_through(run: Run, shape: Shape, seconds: float, trouble: Callable[[], Awaitable[None]]) -> Report:
    """Send the workload, spread over about ``seconds``, have the trouble meanwhile, and judge."""
    return await drive(run, Workload(shape), seconds, ANSWER_SECONDS, trouble)


def words(run: Run) -> str:
    """What all workers have logged so far."""
    return "".join(worker.log.read_text() for worker in run.workers)
