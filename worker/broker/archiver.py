"""Taking dead letters from the queue to the archive, so that none of them holds up another.

Letters are stored in batches, bounded in bytes. A batch that fails is halved
until the letter that fails stands alone. That one is kept without what the
archive refuses, or, if even this fails, tried again later, alone. Each letter
is acknowledged for itself where one waits, which holds back no acknowledgement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from schemas.routing import DEAD_QUEUE
from schemas.stopping import ended
from worker.broker.backlog import BACKOFF, BATCH_LETTERS, Backlog
from worker.broker.dead_letters import letter_from
from worker.broker.link import CLOSE_SECONDS
from worker.broker.tap import Deliveries
from worker.broker.wire import Properties, ack_frame
from worker.engine.ports import DeadLetter, LedgerUnavailable, Whole
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

    from worker.broker.link import Link
    from worker.broker.wire import Message

_log = get_logger(__name__)

PREFETCH: Final = 64
_MAX_WHY: Final = 200


class Archiver:
    """Takes dead letters from the queue, in order, and acknowledges each once it is stored.

    Args:
        store: keeps letters for good, all or none; ``LedgerUnavailable`` means that they can be stored later, any
            other exception that one of them cannot be stored.
        batch: how many letters are stored together at most.
    """

    def __init__(
        self,
        store: Callable[[Sequence[DeadLetter]], Awaitable[None]],
        batch: int = BATCH_LETTERS,
    ) -> None:
        self.archived = 0
        self._store = store
        self._batch = batch
        self._backlog = Backlog(batch)
        self._failures = 0
        self._stopped: str | None = None
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._registering: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str | None:
        """Why the archive stands still; ``None`` while letters get through."""
        if self._backlog.aside >= PREFETCH:
            return f"{self._backlog.aside} dead letters cannot be stored, and no more are taken before they are"
        return self._stopped

    def attach(self, link: Link) -> None:
        """Consume over a new link, as soon as the queue answers."""
        self._backlog = Backlog(self._batch)
        self._link = link
        self._registering = asyncio.create_task(self._register(link))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="broker-archiver")

    def detach(self, link: Link) -> None:
        """The link is gone; what was not acknowledged comes again."""
        if self._link is link:
            self._link = None
            self._backlog = Backlog(self._batch)

    async def close(self) -> None:
        """Stop; a batch that is being stored is finished by whoever gets it next."""
        tasks = [task for task in (self._task, self._registering) if task is not None]
        await ended(tasks, CLOSE_SECONDS)

    async def _register(self, link: Link) -> None:
        try:
            self._channel = await link.channel(Deliveries(self._take, link.abort))
            await link.consume(self._channel, DEAD_QUEUE, PREFETCH)
        except Exception as error:  # noqa: BLE001 - the library's errors have no common base, and all mean "again"
            _log.warning("could not register on the dead letters", error=str(error))
            link.abort()

    def _take(self, message: Message) -> None:
        self._backlog.add(message)
        self._wake.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            link, backlog = self._link, self._backlog
            batch = backlog.take(loop.time())
            if link is None or not batch:
                await self._arrival(None if backlog.due is None else backlog.due - loop.time())
                continue
            failure = await self._keep(batch)
            if failure is None:
                backlog.stored(batch)
                self._stored(link, batch)
            else:
                _log.warning("dead letters wait to be stored", error=repr(failure), letters=len(batch))
                away = isinstance(failure, LedgerUnavailable)
                if backlog.failed(batch, loop.time(), away=away):
                    await self._pause(failure)

    async def _arrival(self, seconds: float | None) -> None:
        """Wait for a letter, or until one that was set aside is due."""
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _keep(self, batch: Sequence[Message]) -> Exception | None:
        """Store letters; one alone that the archive refuses is stored without what may be refused of it."""
        try:
            await self._store([letter_from(message) for message in batch])
        except LedgerUnavailable as trouble:
            return trouble
        except Exception as error:  # noqa: BLE001 - whatever kept the letters from being stored, they stay in the queue
            return error if len(batch) > 1 else await self._keep_reduced(batch[0], error)
        return None

    async def _keep_reduced(self, message: Message, why: Exception) -> Exception | None:
        try:
            await self._store([reduced(message, why)])
        except Exception as error:  # noqa: BLE001 - as above
            return error
        _log.warning("a dead letter is stored without body and headers", error=repr(why))
        return None

    def _stored(self, link: Link, batch: Sequence[Message]) -> None:
        self._failures, self._stopped = 0, None
        self.archived += len(batch)
        if link is not self._link or self._channel is None or self._channel.number is None:
            return
        number = self._channel.number
        if self._backlog.aside:
            link.write(b"".join(ack_frame(number, message.tag, multiple=False) for message in batch))
        else:
            link.write(ack_frame(number, batch[-1].tag))

    async def _pause(self, error: Exception) -> None:
        self._failures += 1
        self._stopped = f"dead letters are not stored: {str(error) or type(error).__name__}"
        await asyncio.sleep(BACKOFF.seconds(self._failures))


def reduced(message: Message, why: Exception) -> DeadLetter:
    """A letter that the archive refused, without its body and headers, and with why."""
    try:
        letter = letter_from(message)
    except Exception:  # noqa: BLE001 - headers that nobody thought of
        letter = letter_from(replace(message, properties=Properties()))
    refusal = f"{type(why).__name__}: {why}"[:_MAX_WHY]
    detail = f"kept without its body and headers, since the archive refused them ({refusal}); {letter.detail}"
    whole = letter.whole or Whole.of(letter.body)
    return replace(letter, body=b"", headers={}, detail=detail, whole=whole)
