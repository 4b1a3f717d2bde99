"""What waits for the broker: sent in order, some at a time, until the broker has answered for it."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from schemas.backoff import Backoff
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_log = get_logger(__name__)

_BACKOFF: Final = Backoff(0.05, 5.0)
"""Nothing else is to be done meanwhile; a broker that starts again is to be met within seconds."""

_T = TypeVar("_T")


class SendQueue(Generic[_T]):
    """Sends what is added, and again what the broker did not answer for.

    Args:
        what: what is sent, in the plural, for the log.
        send: sends some; gives back those that the broker did not answer for, and why it did not.
        at_once: how many are sent together at most.
        pause: waits for so many seconds.
    """

    def __init__(
        self,
        what: str,
        send: Callable[[Sequence[_T]], Awaitable[tuple[Sequence[_T], str | None]]],
        at_once: int,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.waiting: deque[_T] = deque()
        self._what = what
        self._send = send
        self._at_once = at_once
        self._pause = pause
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, one: _T) -> None:
        """Send it after all others."""
        self.waiting.append(one)
        self._idle.clear()
        self._arrived.set()

    async def flushed(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send, forever."""
        failures = 0
        while True:
            await self._arrived.wait()
            trouble = await self._send_some()
            if trouble is None:
                failures = 0
                continue
            failures += 1
            _log.warning(f"{self._what} wait for the broker", error=trouble, waiting=len(self.waiting))
            await self._pause(_BACKOFF.seconds(failures))

    async def _send_some(self) -> str | None:
        some = list(islice(self.waiting, self._at_once))
        left, trouble = await self._send(some)
        for _ in some:
            self.waiting.popleft()
        self.waiting.extendleft(reversed(left))
        if not self.waiting:
            self._arrived.clear()
            self._idle.set()
        return trouble
