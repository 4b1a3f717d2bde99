"""The client for programs without an event loop: the same methods, each of which waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar, Unpack

from schemas.asking import Asking, Ledger
from schemas.client.client import Client
from schemas.client.many import WINDOW
from schemas.client.outcomes import Outcomes, Read
from schemas.commands import Command
from schemas.outcomes import Outcome, Status

T = TypeVar("T")


class SyncClient(Ledger[Outcome]):
    """A :class:`~schemas.client.Client` on a thread of its own; takes the same arguments.

    >>> with SyncClient() as ledger:
    ...     outcome = ledger.claim("cn-017", instance, project="demo", vcpus=4, memory_mib=8192)

    Several threads may use one at once.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = Client(*arguments, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nodeledger client", daemon=True)
        self._thread.start()
        try:
            self._wait(self._client.open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait(self._client.close())
        finally:
            self._stop()

    def send(self, command: Command, **how: Unpack[Asking]) -> Outcome:
        """See :meth:`schemas.client.Client.send`."""
        outcome: Outcome = self._wait(self._client.send(command, **how))
        return outcome

    def send_many(
        self,
        commands: Iterable[Command],
        *,
        window: int = WINDOW,
        seconds: float | None = None,
        on_parked: Callable[[Outcome], object] | None = None,
    ) -> Iterator[Outcome]:
        """See :meth:`schemas.client.Client.send_many`."""
        outcomes: Any = self._client.send_many(commands, window=window, seconds=seconds, on_parked=on_parked)
        try:
            while True:
                yield self._wait(anext(outcomes))
        except StopAsyncIteration:
            pass
        finally:
            self._wait(outcomes.aclose())

    @contextmanager
    def outcomes(
        self, queue: str, *, kinds: Sequence[str] = (), statuses: Sequence[Status] = (), nodes: Sequence[str] = ()
    ) -> Iterator[SyncOutcomes]:
        """See :meth:`schemas.client.Client.outcomes`."""
        opened = self._client.outcomes(queue, kinds=kinds, statuses=statuses, nodes=nodes)
        stream = self._wait(opened.__aenter__())
        try:
            yield SyncOutcomes(stream, self._wait)
        finally:
            self._wait(opened.__aexit__(None, None, None))

    def _wait(self, work: Any) -> Any:
        """Have the loop's thread do something, and wait; interrupted, it is given up there too."""
        if self._loop is None:
            raise RuntimeError("the client is not open: use it in a with statement")
        doing = asyncio.run_coroutine_threadsafe(_coroutine(work), self._loop)
        try:
            return doing.result()
        except BaseException:
            doing.cancel()
            raise

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class SyncOutcomes:
    """The stream of a queue; reading the next one waits for it."""

    def __init__(self, stream: Outcomes, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._stream = stream
        self._wait = wait

    def __iter__(self) -> Iterator[SyncRead]:
        while True:
            yield SyncRead(self._wait(self._stream.__anext__()), self._wait)


class SyncRead:
    """An outcome as it was read; see :class:`schemas.client.Read`."""

    def __init__(self, read: Read, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._read = read
        self._wait = wait

    @property
    def outcome(self) -> Outcome:
        """What was read."""
        return self._read.outcome

    def acknowledge(self) -> None:
        """It is done with."""
        self._wait(self._read.acknowledge())


async def _coroutine(work: Any) -> Any:
    return await work
