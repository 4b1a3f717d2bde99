"""One node's hypervisor: its connection, its slot and its breaker."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from worker.engine.ports import HypervisorUnreachable
from worker.hypervisor.breaker import Breaker
from worker.hypervisor.connection import CallFailed, Connection, ConnectionLost, reach
from worker.hypervisor.documents import XmlFault
from worker.hypervisor.load import LoadReader
from worker.hypervisor.observe import HostReader
from worker.hypervisor.threads import Call, DeadlinePassed, NoThread, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.hypervisor.observe import Shared

T = TypeVar("T")


class NotAsked(HypervisorUnreachable):
    """The node was left alone: it failed a moment ago, its slot is occupied, or no thread is free."""


class TooLate(HypervisorUnreachable):
    """The node did not answer before the deadline."""


class NodeLink:
    """The way to one node: at most one call at a time, and a call that hangs keeps the slot until it returns.

    With ``heard``, each connection listens to what happens on the node and
    calls it, in a thread of libvirt's; ``speaks`` says whether the driver
    tells of anything, once that is known.
    """

    __slots__ = (
        "_answered",
        "_breaker",
        "_call",
        "_connection",
        "_lock",
        "_threads",
        "complaint",
        "heard",
        "last_used",
        "load",
        "reader",
        "retired",
        "speaks",
        "told",
        "uri",
    )

    def __init__(self, uri: str, threads: Threads, shared: Shared) -> None:
        self.uri = uri
        self.reader = HostReader(shared)
        self.load = LoadReader()
        self.heard: Callable[[], None] | None = None
        self.speaks: bool | None = None
        self.last_used = monotonic()
        self.retired = False
        self.told: list[str] = []
        self.complaint: str | None = None
        self._threads = threads
        self._breaker = Breaker()
        self._answered = False
        self._call: Call[object] | None = None
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether a call occupies the slot, be it given up or not."""
        return self._lock.locked() or (self._call is not None and self._call.given_up)

    @property
    def failing(self) -> bool:
        """Whether the node did not answer when it was asked last."""
        return self._breaker.failures > 0

    async def ask(self, question: Callable[[Connection], T], *, deadline_seconds: float) -> T:
        """Ask the node something, in a thread, over a live connection.

        Raises:
            HypervisorUnreachable: it did not answer, it answered with an error
                or with nonsense, or it is not to be asked yet.
        """
        self._refuse()
        async with self._lock:
            self._refuse()
            self.last_used = monotonic()
            try:
                call = self._threads.submit(lambda: self._on_thread(question, deadline_seconds), trusted=self._answered)
                self._call = call  # type: ignore[assignment] # only whether it is done is ever asked
                answer = await self._threads.result(call, deadline_seconds=deadline_seconds)
            except DeadlinePassed:
                raise TooLate(self._failed(f"no answer within {deadline_seconds:g} s")) from None
            except NoThread:
                raise NotAsked("too many other hypervisors hang; this one was not asked") from None
            except XmlFault as fault:
                raise HypervisorUnreachable(self._failed(f"its answer cannot be used: {fault}")) from None
            except CallFailed as failure:
                raise HypervisorUnreachable(self._failed(str(failure))) from None
            self._breaker.succeeded()
            self._answered = True
            return answer

    def retry(self) -> None:
        """Ask again at once, however often it failed: something says that it is back."""
        self._breaker.retry()

    def hang_up(self) -> Call[None] | None:
        """Close the connection, in a thread; a busy slot closes it by itself when its call returns."""
        self.retired = True
        if self.busy or self._connection is None:
            return None
        try:
            return self._threads.submit(self._close, trusted=True)
        except NoThread:
            return None

    def _refuse(self) -> None:
        if self._call is not None and self._call.given_up:
            raise NotAsked("an earlier call has still not returned")
        if self._breaker.is_open(monotonic()):
            raise NotAsked(self._breaker.reason)

    def _failed(self, reason: str) -> str:
        self._breaker.failed(monotonic(), reason)
        self._answered = False
        return reason

    def _on_thread(self, question: Callable[[Connection], T], deadline_seconds: float) -> T:
        """Ask over the connection there is; should it prove dead while somebody still waits, over a new one."""
        try:
            if self._connection is not None:
                try:
                    self._listen(self._connection)
                    return question(self._connection)
                except ConnectionLost:
                    self._close()
                    if self._call is not None and self._call.given_up:
                        raise
            if self.failing:
                reach(self.uri, timeout_seconds=deadline_seconds)
            self._connection = Connection(self.uri)
            self._listen(self._connection)
            try:
                return question(self._connection)
            except ConnectionLost:
                self._close()
                raise
        finally:
            if self.retired:
                self._close()

    def _listen(self, connection: Connection) -> None:
        if self.heard is not None:
            self.speaks = connection.listen(self.heard)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
