"""Dead letters: putting them where they are safe, and taking them to the archive."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage

from schemas.routing import COMMAND_EXCHANGE, DEAD_EXCHANGE, DEAD_QUEUE, DETAIL_HEADER, REASON_HEADER
from worker.broker.session import pause_before
from worker.broker.tables import TABLE_MAX_BYTES, write_tables
from worker.broker.tap import Deliveries
from worker.broker.watermark import Watermark
from worker.broker.wire import ack_frame
from worker.engine.ports import BrokerUnavailable, DeadLetter

if TYPE_CHECKING:
    import random

    from aio_pika.abc import AbstractChannel, AbstractExchange

    from worker.broker.session import Link, Session
    from worker.broker.wire import Message

logger = logging.getLogger(__name__)

COMMAND_HEADER: Final = "x-nodeledger-command"
NODE_HEADER: Final = "x-nodeledger-node"
KIND_HEADER: Final = "x-nodeledger-kind"
OWN_HEADERS: Final = frozenset({REASON_HEADER, DETAIL_HEADER, COMMAND_HEADER, NODE_HEADER, KIND_HEADER})
DETAIL_MAX_BYTES: Final = 4096
# Our own at their largest, so that all together are not more than is read again.
OWN_MAX_BYTES: Final = len(OWN_HEADERS) * (DETAIL_MAX_BYTES + 64)
OWN_PREFIX: Final = "x-nodeledger-"
PREFETCH: Final = 64
_TOGETHER: Final = 64


class Mortuary:
    """Publishes dead letters, each confirmed by the dead-letter queue itself."""

    def __init__(self, session: Session, confirm_seconds: float = 30.0) -> None:
        self._session = session
        self._confirm_seconds = confirm_seconds
        self._exchange: AbstractExchange | None = None
        self._link: Link | None = None

    async def attach(self, link: Link) -> None:
        """Publish over a new link from now on."""
        channel = await link.channel(confirms=True)
        self._exchange = await channel.get_exchange(DEAD_EXCHANGE, ensure=False)
        self._link = link

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Publish dead letters and wait until all are safe.

        Raises:
            BrokerUnavailable: at least one may not have arrived; burying all
                again is safe, since the archive knows a letter by its body and reason.
        """
        link = await self._session.ready(self._confirm_seconds)
        if link is not self._link or self._exchange is None:
            raise BrokerUnavailable("the connection to the broker was lost")
        for at in range(0, len(letters), _TOGETHER):
            sent = [self._publish(self._exchange, letter) for letter in letters[at : at + _TOGETHER]]
            results = await asyncio.gather(*sent, return_exceptions=True)
            for problem in results:
                if isinstance(problem, Exception):
                    raise BrokerUnavailable(f"a dead letter was not confirmed: {problem!r}") from problem
                if isinstance(problem, BaseException):
                    raise problem

    async def _publish(self, exchange: AbstractExchange, letter: DeadLetter) -> None:
        message = AmqpMessage(
            letter.body,
            headers=headers_of(letter),
            message_id=str(letter_id(letter)),
            content_type="application/octet-stream",
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, letter.reason, mandatory=True, timeout=self._confirm_seconds)


def letter_id(letter: DeadLetter) -> UUID:
    """The same for the same body and reason, so that a letter published twice is known."""
    digest = hashlib.sha256(letter.reason.encode() + b"\x00" + letter.body).digest()
    return UUID(bytes=digest[:16])


def headers_of(letter: DeadLetter) -> dict[str, Any]:
    """The message's own headers with ours beside them; of its own, those that fit and can be written."""
    own: dict[str, Any] = {REASON_HEADER: letter.reason, DETAIL_HEADER: _cut(letter.detail, DETAIL_MAX_BYTES)}
    for name, value in ((COMMAND_HEADER, letter.command), (NODE_HEADER, letter.node), (KIND_HEADER, letter.kind)):
        if value is not None:
            own[name] = _cut(str(value), DETAIL_MAX_BYTES)
    # The product's first: whose the message was and where its answer goes matters more than what its sender added.
    names = sorted(letter.headers.keys() - OWN_HEADERS, key=lambda name: (not name.startswith(OWN_PREFIX), name))
    return write_tables({name: letter.headers[name] for name in names}, TABLE_MAX_BYTES - OWN_MAX_BYTES) | own


def letter_from(message: Message) -> DeadLetter:
    """A dead letter from the queue; of one that somebody else put there, as much as can be told."""
    headers = message.properties.headers
    reason, detail = headers.get(REASON_HEADER), headers.get(DETAIL_HEADER)
    if not isinstance(reason, str):
        exchange, key = message.exchange_and_key()
        reason = "misrouted" if exchange == COMMAND_EXCHANGE else "malformed"
        detail = f"not put here by a worker: published to exchange {exchange!r} with routing key {key!r}"
    return DeadLetter(
        message.body,
        reason,
        str(detail or ""),
        _uuid(headers.get(COMMAND_HEADER)),
        _text(headers.get(NODE_HEADER)),
        _text(headers.get(KIND_HEADER)),
        {name: value for name, value in headers.items() if name not in OWN_HEADERS},
    )


class Archiver:
    """Takes dead letters from the queue, in order, and acknowledges them once they are stored.

    Args:
        store: keeps letters for good; an exception means that it could not, and the same letters come again.
        jitter: for the pauses after a failure to store.
        batch: how many letters are stored together at the most.
    """

    def __init__(
        self, store: Callable[[Sequence[DeadLetter]], Awaitable[None]], jitter: random.Random, batch: int = 50
    ) -> None:
        self.archived = 0
        self._store = store
        self._jitter = jitter
        self._batch = batch
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._watermark = Watermark()
        self._waiting: list[Message] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._registering: asyncio.Task[None] | None = None

    def attach(self, link: Link) -> None:
        """Consume over a new link, as soon as the queue answers."""
        self._waiting, self._watermark = [], Watermark()
        self._link = link
        self._registering = asyncio.create_task(self._register(link))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="broker-archiver")

    def detach(self, link: Link) -> None:
        """The link is gone; what was not acknowledged comes again."""
        if self._link is link:
            self._link = None
            self._waiting = []

    async def close(self) -> None:
        """Stop; a batch that is being stored is finished by whoever gets it next."""
        tasks = [task for task in (self._task, self._registering) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _register(self, link: Link) -> None:
        try:
            self._channel = await link.channel(Deliveries(self._take, link.abort))
            await link.consume(self._channel, DEAD_QUEUE, PREFETCH)
        except Exception as error:  # noqa: BLE001 - the library's errors have no common base, and all mean "again"
            logger.warning("could not register on the dead letters", extra={"error": str(error)})
            link.abort()

    def _take(self, message: Message) -> None:
        self._watermark.deliver(message.tag)
        self._waiting.append(message)
        self._wake.set()

    async def _work(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            link, batch = self._link, self._waiting[: self._batch]
            if link is None or not batch:
                self._wake.clear()
                continue
            try:
                await self._store([letter_from(message) for message in batch])
            except Exception as error:  # noqa: BLE001 - whatever kept the letters from being stored, they stay in the queue
                failures += 1
                logger.warning("dead letters wait to be stored", extra={"error": repr(error), "letters": len(batch)})
                await asyncio.sleep(pause_before(failures, self._jitter))
                continue
            failures = 0
            self.archived += len(batch)
            if link is self._link:
                self._acknowledge(link, batch)

    def _acknowledge(self, link: Link, batch: Sequence[Message]) -> None:
        del self._waiting[: len(batch)]
        for message in batch:
            self._watermark.finish(message.tag)
        tag = self._watermark.take()
        if tag is not None and self._channel is not None and self._channel.number is not None:
            link.write(ack_frame(self._channel.number, tag))


def _cut(text: str, limit: int) -> str:
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value)) if value is not None else None
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
