"""Dead letters on the broker: putting them where they are safe, and reading them again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage

from schemas.parsing import Readable, read_as_far
from schemas.routing import COMMAND_EXCHANGE, DEAD_EXCHANGE, DETAIL_HEADER, REASON_HEADER
from worker.broker.link import asked
from worker.broker.tables import TABLE_MAX_BYTES, write_tables
from worker.engine.ports import (
    CORRELATION_HEADER,
    DIGEST_HEADER,
    REPLY_TO_HEADER,
    SENDERS_HEADER,
    SIZE_HEADER,
    BrokerUnavailable,
    DeadLetter,
    Whole,
    senders_line,
)

if TYPE_CHECKING:
    from aio_pika.abc import AbstractExchange

    from schemas.outcomes import DeadReason
    from worker.broker.link import Link
    from worker.broker.session import Session
    from worker.broker.wire import Message

COMMAND_HEADER: Final = "x-nodeledger-command"
NODE_HEADER: Final = "x-nodeledger-node"
KIND_HEADER: Final = "x-nodeledger-kind"
OWN_HEADERS: Final = frozenset({
    REASON_HEADER, DETAIL_HEADER, COMMAND_HEADER, NODE_HEADER, KIND_HEADER, SIZE_HEADER, DIGEST_HEADER
})  # fmt: skip
DETAIL_MAX_BYTES: Final = 4096
# Our own at their largest, so that all together are not more than is read again.
OWN_MAX_BYTES: Final = len(OWN_HEADERS) * (DETAIL_MAX_BYTES + 64)
OWN_PREFIX: Final = "x-nodeledger-"
_TOGETHER: Final = 64


class DeadLetterPublisher:
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

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Publish dead letters and wait until all are safe.

        Raises:
            BrokerUnavailable: at least one may not have arrived; dead-lettering all
                again is safe, since the archive knows a letter by its body and reason.
        """
        link = await self._session.ready(self._confirm_seconds)
        if link is not self._link or self._exchange is None:
            raise BrokerUnavailable("the connection to the broker was lost")
        for at in range(0, len(letters), _TOGETHER):
            sent = [self._publish(self._exchange, letter) for letter in letters[at : at + _TOGETHER]]
            # Of each a result, since the library cancels those whose connection is gone.
            results = await asked(asyncio.gather(*sent, return_exceptions=True))
            for problem in results:
                if isinstance(problem, BaseException):
                    raise BrokerUnavailable(f"a dead letter was not confirmed: {problem!r}") from problem

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
    known_by = letter.body if letter.whole is None else letter.whole.digest.bytes
    digest = hashlib.sha256(letter.reason.encode() + b"\x00" + known_by).digest()
    return UUID(bytes=digest[:16])


def headers_of(letter: DeadLetter) -> dict[str, Any]:
    """The message's own headers with ours beside them; of its own, those that fit and can be written."""
    own: dict[str, Any] = {REASON_HEADER: letter.reason, DETAIL_HEADER: _cut(letter.detail, DETAIL_MAX_BYTES)}
    for name, value in ((COMMAND_HEADER, letter.command), (NODE_HEADER, letter.node), (KIND_HEADER, letter.kind)):
        if value is not None:
            own[name] = _cut(str(value), DETAIL_MAX_BYTES)
    if letter.whole is not None:
        own |= {SIZE_HEADER: letter.whole.size, DIGEST_HEADER: str(letter.whole.digest)}
    # The product's first: whose the message was and where its answer goes matters more than what its sender added.
    names = sorted(letter.headers.keys() - OWN_HEADERS, key=lambda name: (not name.startswith(OWN_PREFIX), name))
    return write_tables({name: letter.headers[name] for name in names}, TABLE_MAX_BYTES - OWN_MAX_BYTES) | own


def letter_from(message: Message) -> DeadLetter:
    """A dead letter from the queue; of one that somebody else put there, as much as can be told."""
    headers = message.properties.headers
    reason, detail = headers.get(REASON_HEADER), headers.get(DETAIL_HEADER)
    exchange, key = message.exchange_and_key()
    if key != reason and (left := _left_queue(headers)) is not None:
        return _left(message, *left)
    if not isinstance(reason, str):
        reason = "misrouted" if exchange == COMMAND_EXCHANGE else "malformed"
        detail = f"not put here by a worker: published to exchange {exchange!r} with routing key {key!r}"
    return DeadLetter(
        body=message.body,
        reason=reason,
        detail=str(detail or ""),
        command=_uuid(headers.get(COMMAND_HEADER)),
        node=_text(headers.get(NODE_HEADER)),
        kind=_text(headers.get(KIND_HEADER)),
        headers={name: value for name, value in headers.items() if name not in OWN_HEADERS},
        whole=message.whole or _whole(headers),
    )


def _left_queue(headers: Mapping[str, object]) -> tuple[str, str] | None:
    """Which command queue the broker itself took a message out of, and why.

    A worker's letter, whose key is its reason, may have such a header from its sender.
    """
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], Mapping) else {}
    queue, why = last.get("queue"), last.get("reason")
    if isinstance(queue, str) and isinstance(why, str) and queue.startswith(f"{COMMAND_EXCHANGE}."):
        return queue, why
    return None


def _left(message: Message, queue: str, why: str) -> DeadLetter:
    """A message that the broker took out of a command queue: all that is told of it is its own, or its sender's."""
    properties = message.properties
    reason: DeadReason = "poison" if why == "delivery_limit" else "expired_in_queue"
    headers = {name: value for name, value in properties.headers.items() if name not in OWN_HEADERS}
    headers[SENDERS_HEADER] = senders_line(properties.user_id, properties.headers)
    for name, value in ((REPLY_TO_HEADER, properties.reply_to), (CORRELATION_HEADER, properties.correlation_id)):
        headers.pop(name, None)
        if value is not None:
            headers[name] = value
    read = read_as_far(message.body) if message.whole is None else Readable()
    detail = f"the broker took it out of {queue} before a worker had it ({why})"
    return DeadLetter(
        body=message.body,
        reason=reason,
        detail=detail,
        command=read.id,
        node=read.node,
        kind=read.kind,
        headers=headers,
        whole=message.whole,
        untold=True,
    )


def _whole(headers: Mapping[str, object]) -> Whole | None:
    size, digest = headers.get(SIZE_HEADER), _uuid(headers.get(DIGEST_HEADER))
    return Whole(size, digest) if isinstance(size, int) and digest is not None else None


def _cut(text: str, limit: int) -> str:
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value)) if value is not None else None
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
