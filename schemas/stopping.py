"""Coming to an end in time, whatever becomes of a cancellation on its way.

A cancellation is an exception that any code between the loop and its target
may turn into something else: ``asyncio.wait_for`` drops one that comes
together with what it waits for (before Python 3.12), a client library ends
with an error of its own instead. So nobody here waits for one to arrive, but
for the task to have ended, and for that no longer than it may take.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from schemas.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

_T = TypeVar("_T")

AGAIN_SECONDS: Final = 0.5
"""How long a task may clean up before it is cancelled once more."""


class InnerCancelledError(NodeledgerError):
    """What was waited for was cancelled from inside, which is no reason for whoever waits to end."""


async def ended(tasks: Iterable[asyncio.Future[Any]], seconds: float) -> set[asyncio.Future[Any]]:
    """Cancel tasks, again and again where that gets lost, until all have ended; which have not after ``seconds``."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    left = {task for task in tasks if not _over(task)}
    while left and (remaining := deadline - clock()) > 0:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=min(AGAIN_SECONDS, remaining))
        left = {task for task in left if not _over(task)}
    return left


def _over(task: asyncio.Future[Any]) -> bool:
    """Whether a task has ended; what it ended with, nobody asks for any more."""
    if task.done() and not task.cancelled():
        task.exception()
    return task.done()


async def run_within(work: Awaitable[_T], seconds: float | None) -> _T:
    """Do some work in a task of its own and wait for it; once nobody waits, it is cancelled and left to itself.

    Raises:
        TimeoutError: it took longer than ``seconds``.
        InnerCancelledError: it was cancelled, and not by whoever waits here.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_over)
    if not task.done():
        raise TimeoutError(f"not done within {seconds} s")
    if task.cancelled():
        raise InnerCancelledError
    return task.result()
