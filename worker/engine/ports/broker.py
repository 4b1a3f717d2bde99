"""RabbitMQ, as the engine sees it: what comes in, what goes out, and what cannot be applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class BrokerUnavailable(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """The broker is away or did not confirm in time; what was sent may or may not have arrived."""


class NotConfirmed(BrokerUnavailable):
    """Some of the messages published in one call were not confirmed.

    ``unanswered`` may or may not have arrived: publish them again. ``refused``
    the broker answered for and did not take, or has held up while it took what
    was sent later: a queue that they were to go to is full or out of order, and
    they are worth another attempt, alone and later. ``too_large`` it will never
    take. Each in the order in which they were given. ``of`` is how many there
    were in all, and ``detail`` why others than the refused are missing.
    """

    def __init__(self, of: int) -> None:
        super().__init__()
        self.of = of
        self.detail = "the broker refused messages"
        self.unanswered: list[Outgoing] = []
        self.refused: list[Outgoing] = []
        self.too_large: list[Outgoing] = []

    @property
    def messages(self) -> list[Outgoing]:
        """All that were not confirmed."""
        return [*self.too_large, *self.refused, *self.unanswered]

    def by_identity(self) -> tuple[set[int], set[int], set[int]]:
        """The ``id()`` of each of the unanswered, the refused and the too large."""
        return set(map(id, self.unanswered)), set(map(id, self.refused)), set(map(id, self.too_large))

    def __str__(self) -> str:
        return f"{len(self.messages)} of {self.of} not confirmed: {self.detail}"


SENDERS_HEADER: Final = "x-nodeledger-senders"
"""Of a dead letter and its replay: the users through whose hands it went, one a line."""

REPLY_TO_HEADER: Final = "x-nodeledger-reply-to"
CORRELATION_HEADER: Final = "x-nodeledger-correlation-id"
NOBODY: Final = ""
_MAX_SENDERS: Final = 16
SIZE_HEADER: Final = "x-nodeledger-size"
DIGEST_HEADER: Final = "x-nodeledger-digest"
"""Of a dead letter that has only the head of a body: the size of the whole in bytes, and its digest."""


def line_up(before: object, user: str | None) -> Sequence[str]:
    """The senders of a message: those of its header, then who sent it. No plain list of names vouches for nobody."""
    if before is None:
        return (user or NOBODY,)
    if not isinstance(before, str) or before.count("\n") >= _MAX_SENDERS:
        return (NOBODY,)
    return tuple(dict.fromkeys((*before.split("\n"), user or NOBODY)))


def senders_line(user: str | None, headers: Mapping[str, object]) -> str:
    """The senders of a message as one text, for its dead letter."""
    return "\n".join(line_up(headers.get(SENDERS_HEADER), user))


@dataclass(frozen=True, slots=True)
class Whole:
    """What a body was of which only the head is kept: its size in bytes, and its digest, BLAKE2b of 128 bits."""

    size: int
    digest: UUID

    @classmethod
    def of(cls, body: bytes) -> Whole:
        """What a body is known by once it is not kept."""
        return cls(len(body), UUID(bytes=blake2b(body, digest_size=16).digest()))


@dataclass(slots=True)
class Delivery:
    """One message as the broker delivered it.

    ``received_at`` is the loop's monotonic time in seconds. ``tag`` and
    ``source`` belong to the broker adapter: they find the way back for the
    acknowledgement, and are worthless once the channel is gone. So does
    ``weight``, the memory in bytes that the message is reckoned to take. Of a
    body that is far too large, ``body`` is the head and ``whole`` tells the rest.
    """

    shard: int
    body: bytes
    tag: int
    source: object
    redelivered: bool
    received_at: float
    reply_to: str | None = None
    correlation_id: str | None = None
    user_id: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    whole: Whole | None = None
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer carries back: the queue for a copy of it, the sender's correlation, the trace it continues."""

    to: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


NO_REPLY: Final = Reply()


@dataclass(slots=True)
class Outgoing:
    """A message to publish: an outcome, or its copy to ``reply_to`` through the default exchange."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    correlation_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class DeadLetter:
    """A message that cannot be applied: its raw bytes, and why; where ``whole`` is given, ``body`` is but the head.

    ``untold`` says that its sender has still to be told: no worker had it, the broker itself took it out of its queue.
    """

    body: bytes
    reason: str
    detail: str
    command: UUID | None = None
    node: str | None = None
    kind: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    whole: Whole | None = None
    untold: bool = False


class Broker(Protocol):
    """RabbitMQ, as the engine sees it."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish and wait for every confirm.

        Raises:
            NotConfirmed: at least one was not; it tells which, and what to do.
                Publishing again is safe: receivers know an outcome by its command.
        """

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Put messages safely into the dead letters.

        Raises:
            BrokerUnavailable: at least one was not confirmed.
        """

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Mark deliveries as finished; each channel acknowledges up to its highest finished tag without a gap."""

    async def in_line(self) -> None:
        """Wait until this worker stands in line at every shard.

        Raises:
            BrokerUnavailable: the broker is away for longer than a moment.
        """

    def served(self) -> Iterable[int]:
        """The shards that the broker has been serving this worker with."""

    async def yield_shards(self, shards: Iterable[int]) -> None:
        """Queue up again behind the other consumers of these shards, with no order broken."""
