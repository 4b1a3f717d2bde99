"""Threads for calls that block and may never return.

A call that hangs cannot be taken back: its thread is lost until it returns. So
calls are counted twice. Only ``limit`` run at once as long as they return
briskly, which keeps ten thousand healthy nodes from crowding the processor. If
for a moment none returns while others wait, those under way are waiting
themselves and no longer count: others are started beside them, up to
``ceiling`` threads in all. Of these the last ``limit`` are kept for trusted
calls, those to nodes that answered the last time, which also go first: nodes
that hang can never take what the healthy need. Threads are daemons: the
process ends whatever they wait for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

STALLED_AFTER_SECONDS: Final = 0.02


class DeadlinePassed(NodeledgerError):  # noqa: N818 - what happened
    """The call did not return in time; it may still be running."""


class NoThread(NodeledgerError):  # noqa: N818 - what happened
    """Too many calls hang: there is no thread for this one."""


class Call(Generic[T]):
    """One call under way. ``finished`` turns true when its function has really returned, deadline or not."""

    __slots__ = ("answer", "finished", "function", "started")

    def __init__(self, function: Callable[[], T], answer: asyncio.Future[T]) -> None:
        self.function = function
        self.answer = answer
        self.started = False
        self.finished = False

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for the answer any more while the function still runs."""
        return self.started and self.answer.done() and not self.finished


class Threads:
    """The threads, started as they are needed. All methods belong to the event loop's thread."""

    def __init__(self, *, limit: int, ceiling: int) -> None:
        self._limit = limit
        self._ceiling = max(ceiling, 2 * limit)
        self._jobs: SimpleQueue[Call[object] | None] = SimpleQueue()
        self._waiting: tuple[deque[Call[object]], deque[Call[object]]] = (deque(), deque())
        self._alive = 0
        self._running = 0
        self._returns = 0
        self._brisk: set[Call[object]] = set()
        self._given_up: set[object] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def running(self) -> int:
        """How many threads are in a call, those past their deadline included."""
        return self._running

    @property
    def given_up(self) -> int:
        """How many calls run on past their deadline."""
        return len(self._given_up)

    def submit(self, function: Callable[[], T], *, trusted: bool) -> Call[T]:
        """Start a call as soon as it may, trusted ones first.

        Raises:
            NoThread: so many calls hang that this one could not be started.
        """
        if self._closed or self._running >= self._room(trusted=trusted):
            raise NoThread
        call = Call(function, asyncio.get_running_loop().create_future())
        self._waiting[0 if trusted else 1].append(call)
        self._start_waiting()
        return call

    async def result(self, call: Call[T], *, deadline_seconds: float) -> T:
        """Wait for a call's answer.

        Raises:
            DeadlinePassed: it took longer, and may still be running.
            NoThread: no thread became free for it, and it will not be run.
        """
        expiry = asyncio.get_running_loop().call_later(deadline_seconds, self._expire, call)
        try:
            return await call.answer
        finally:
            expiry.cancel()

    def close(self) -> None:
        """Let idle threads end, and busy ones when they return; nobody waits for them."""
        self._closed = True
        for _ in range(self._alive):
            self._jobs.put(None)

    def _room(self, *, trusted: bool) -> int:
        return self._ceiling if trusted else self._ceiling - self._limit

    def _start_waiting(self) -> None:
        for trusted, queue in ((True, self._waiting[0]), (False, self._waiting[1])):
            while queue and len(self._brisk) < self._limit and self._running < self._room(trusted=trusted):
                call = queue.popleft()
                if call.answer.done():
                    continue
                if self._running == self._alive and not self._spawn():
                    call.answer.set_exception(NoThread())
                    continue
                call.started = True
                self._brisk.add(call)
                self._running += 1
                self._jobs.put(call)
        if self._watch is None and (self._waiting[0] or self._waiting[1]):
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(STALLED_AFTER_SECONDS, self._look, self._returns)

    def _look(self, returns_before: int) -> None:
        """See whether any call has returned since the last look; if not, those under way no longer count."""
        self._watch = None
        if self._returns == returns_before:
            self._brisk.clear()
        self._start_waiting()

    def _spawn(self) -> bool:
        work = (self._jobs, asyncio.get_running_loop(), self._returned)
        try:
            Thread(target=_work, args=work, name=f"hypervisor-{self._alive}", daemon=True).start()
        except RuntimeError:
            return False  # the system has no more threads for this process
        self._alive += 1
        return True

    def _expire(self, call: Call[T]) -> None:
        if not call.answer.done():
            call.answer.set_exception(DeadlinePassed() if call.started else NoThread())
        if call.given_up:
            self._given_up.add(call)
        self._brisk.discard(call)
        self._start_waiting()

    def _returned(self, call: Call[T], result: T | None, error: BaseException | None) -> None:
        call.finished = True
        self._running -= 1
        self._returns += 1
        self._given_up.discard(call)
        self._brisk.discard(call)
        if not call.answer.done():
            if error is None:
                call.answer.set_result(result)  # type: ignore[arg-type]
            else:
                call.answer.set_exception(error)
        if self._alive - self._running > self._limit and not self._closed:
            self._alive -= 1
            self._jobs.put(None)
        self._start_waiting()


def _work(
    jobs: SimpleQueue[Call[object] | None],
    loop: asyncio.AbstractEventLoop,
    returned: Callable[[Call[object], object, BaseException | None], None],
) -> None:
    while (call := jobs.get()) is not None:
        result: object = None
        error: BaseException | None = None
        try:
            result = call.function()
        except BaseException as raised:  # noqa: BLE001 - it belongs to whoever waits for the answer
            error = raised
        try:
            loop.call_soon_threadsafe(returned, call, result, error)
        except RuntimeError:
            return  # the loop is gone, and with it everybody who waited
        del call, result, error
