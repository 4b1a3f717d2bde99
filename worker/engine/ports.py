"""What the engine needs of the world: a broker, hypervisors, and the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from schemas import Inventory
    from schemas.outcomes import Status
    from worker.accounting.post import Posting
    from worker.accounting.state.domains import Domain, DomainState
    from worker.accounting.state.view import View


class HypervisorUnreachable(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """The hypervisor did not answer: nothing is known of it, and nothing is proven."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


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


class LedgerUnavailable(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """The database is away, or refused for the time being; whether a commit happened is not known."""


class LedgerConflict(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """Another worker changed what this transaction stands on: run it again on what is there now.

    ``nodes`` names further nodes that must be loaded from the start.
    """

    def __init__(self, detail: str, nodes: Iterable[str] = ()) -> None:
        super().__init__(detail)
        self.nodes = frozenset(nodes)


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
    """A message that cannot be applied: its raw bytes, and why; where ``whole`` is given, ``body`` is but the head."""

    body: bytes
    reason: str
    detail: str
    command: UUID | None = None
    node: str | None = None
    kind: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    whole: Whole | None = None


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


class Hypervisors(Protocol):
    """libvirt, as the engine sees it. What asks may raise :class:`HypervisorUnreachable`."""

    def refusal(self, uri: str) -> str | None:
        """Why this address may not be opened; ``None`` if it may."""

    async def inventory(self, node: str, uri: str) -> Inventory:
        """What the node has; the same object again as long as nothing changed."""

    def host_uuid(self, node: str) -> UUID | None:
        """The UUID of the machine that answered for the node last; ``None`` where it tells none."""

    async def domain_state(self, node: str, uri: str, instance: UUID) -> DomainState:
        """Whether the instance's domain exists and runs."""

    async def domains(self, node: str, uri: str) -> Sequence[Domain]:
        """Every domain of the node."""


@dataclass(slots=True)
class ReadKeys:
    """What a batch touches.

    Of nodes in ``members``, every instance that holds something there is loaded
    too; of ``hosts``, machines that answered for a node, which node they are.
    """

    nodes: set[str] = field(default_factory=set)
    instances: set[UUID] = field(default_factory=set)
    commands: list[UUID] = field(default_factory=list)
    members: set[str] = field(default_factory=set)
    hosts: dict[str, UUID] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """A command that was seen before: what it was, and what was answered."""

    fingerprint: UUID
    status: Status
    kind: str
    node: str
    outcome: str


@dataclass(slots=True)
class ReadSet:
    """What a transaction found, all at one moment. ``now`` is the database's time."""

    view: View
    known: dict[UUID, Known]
    now: datetime


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """The row that makes a command's id unique and holds its outcome."""

    command: UUID
    fingerprint: UUID
    kind: str
    status: Status
    node: str
    instance: UUID | None
    received_at: datetime
    codes: tuple[str, ...]
    reply: Reply
    outcome: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A command that waits for its node's hypervisor. With ``blocking`` those behind it wait too."""

    node: str
    command: UUID
    body: bytes
    reply: Reply
    user_id: str | None
    received_at: datetime
    blocking: bool
    detail: str
    seq: int = 0
    parked_at: datetime | None = None


@dataclass(slots=True)
class WriteSet:
    """Everything one batch changes.

    ``postings`` come with the command they belong to, ``unparked`` commands with
    the node they were parked for. ``outbox`` names this
    batch until all its outcomes are published. ``revived`` are commands that
    were seen before, so that a letter may tell of them, and are applied or rejected now.
    """

    answers: list[OutcomeRecord] = field(default_factory=list)
    postings: list[tuple[UUID, str, Posting]] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    unparked: dict[UUID, str] = field(default_factory=dict)
    tried: list[UUID] = field(default_factory=list)
    revived: list[UUID] = field(default_factory=list)
    outbox: UUID | None = None
    published: list[UUID] = field(default_factory=list)


class Transaction(Protocol):
    """One batch: load, then write, all of it or nothing; leaving its context commits what is not committed yet."""

    async def load(self, keys: ReadKeys) -> ReadSet:
        """Read what the batch touches.

        Raises:
            LedgerConflict: an instance holds something on a node that is not among the keys,
                or a node changed while it was read.
        """

    async def write(self, read: ReadSet, writes: WriteSet) -> None:
        """Write the changed view and everything else that the batch changes, if what it stands on is as it was read.

        Raises:
            LedgerConflict: a node, an instance or a command was changed by another worker.
        """


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that ran out."""

    node: str
    instance: UUID
    expired_at: datetime


@dataclass(frozen=True, slots=True)
class Unpublished:
    """Outcomes that a crash may have left unpublished."""

    outbox: UUID
    outcomes: list[OutcomeRecord]


class Ledger(Protocol):
    """Postgres, as the engine sees it. Every method may raise :class:`LedgerUnavailable`."""

    def transaction(self, *, locking: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """A transaction of its own. With ``locking`` nobody else changes its nodes from the time they are loaded."""

    async def attempts(self, commands: Sequence[UUID]) -> dict[UUID, int]:
        """How often commands were begun and not finished; those that never were are left out."""

    async def count_attempts(self, commands: Sequence[UUID]) -> None:
        """Note, before they begin, that commands are tried once more."""

    async def uncount_attempts(self, commands: Sequence[UUID]) -> None:
        """Take one count of each back: they wait, and are counted again before they go on."""

    async def parked_in_all(self) -> tuple[int, int]:
        """How many commands are parked, and of how many nodes."""

    async def due_probes(self, limit: int, *, least: float, most: float) -> list[str]:
        """Nodes with parked commands whose hypervisor is to be asked now, and which no other worker is asking.

        Asking is left to the caller for a time that doubles with each call,
        between ``least`` and ``most`` seconds.
        """

    async def forget_probes(self) -> None:
        """Ask nodes no more for which nothing is parked."""

    async def probe_again(self, node: str, seconds: float) -> None:
        """Have a node that answered asked again after so many seconds, if something is still parked then."""

    async def parked(self, node: str, limit: int) -> list[Parked]:
        """The first parked commands of a node, in their order."""

    async def due_leases(self, limit: int, after: Lease | None = None) -> list[Lease]:
        """Leases that ran out, in the order of their ends and of their fields, after one of them."""

    async def unpublished(self, age: float, limit: int) -> list[Unpublished]:
        """Batches older than ``age`` seconds whose outcomes may not all be published."""

    async def published(self, outboxes: Sequence[UUID]) -> None:
        """Note that every outcome of these batches is published."""

    async def narrow_unpublished(self, missing: Mapping[UUID, Sequence[UUID]], seconds: float) -> None:
        """Note that of these batches only the outcomes of these commands are not published.

        They are left to the caller for so many seconds.
        """

    async def addresses(self, nodes: Sequence[str]) -> dict[str, str]:
        """The hypervisors of nodes; nodes without one are left out."""
