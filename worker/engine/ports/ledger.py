"""Postgres, as the engine sees it: what a batch reads and writes, and what waits in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from worker.accounting.rules.drift import Difference, DriftChange
from worker.engine.ports.broker import Reply
from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from uuid import UUID

    from schemas.outcomes import Status
    from worker.accounting.post import Posting
    from worker.accounting.state.load import Load
    from worker.accounting.state.view import View


class LedgerUnavailable(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """The database is away, or refused for the time being; whether a commit happened is not known."""


class LedgerConflict(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """Another worker changed what this transaction stands on: run it again on what is there now.

    ``nodes`` names further nodes that must be loaded from the start. ``cause``
    is ``deadlock`` where transactions waited for each other, and this one was ended.
    """

    def __init__(
        self, detail: str, nodes: Iterable[str] = (), cause: Literal["conflict", "deadlock"] = "conflict"
    ) -> None:
        super().__init__(detail)
        self.nodes = frozenset(nodes)
        self.cause = cause


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
    """What a transaction found, all at one moment. ``now`` is the database's time.

    ``drift`` is what is known to differ on nodes of which every instance is loaded.
    """

    view: View
    known: dict[UUID, Known]
    now: datetime
    drift: dict[str, list[Difference]] = field(default_factory=dict)


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

    ``loads`` are how busy nodes are. ``postings`` come with the command they belong to, ``unparked`` commands with
    the node they were parked for. ``outbox`` names this
    batch until all its outcomes are published. ``revived`` are commands that
    were seen before, so that a letter may tell of them, and are applied or rejected now.
    """

    answers: list[OutcomeRecord] = field(default_factory=list)
    postings: list[tuple[UUID, str, Posting]] = field(default_factory=list)
    drift: DriftChange = field(default_factory=DriftChange)
    loads: dict[str, Load] = field(default_factory=dict)
    parked: list[Parked] = field(default_factory=list)
    unparked: dict[UUID, str] = field(default_factory=dict)
    tried: list[UUID] = field(default_factory=list)
    revived: list[UUID] = field(default_factory=list)
    outbox: UUID | None = None
    published: list[UUID] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether the commands of the batch change anything."""
        return any((self.answers, self.parked, self.unparked, self.tried, self.drift, self.loads))


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


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """A node with a hypervisor: its address, and how often it is audited in seconds if its policy says so."""

    node: str
    address: str
    interval: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a node stands: its version, its hypervisor, whether that answered last, and how many commands are parked."""

    generation: int
    address: str
    reachable: bool | None
    parked: int


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

    async def wake_probes(self, nodes: Sequence[str]) -> None:
        """Have those of these nodes asked at once for which commands are parked."""

    async def hypervisors(self) -> list[Hypervisor]:
        """Every node that has a hypervisor."""

    async def standings(self, nodes: Sequence[str]) -> dict[str, Standing]:
        """How nodes stand now; those that are gone or have no hypervisor are left out."""

    async def drift_in_all(self) -> dict[str, int]:
        """How much differs between the ledger and the hypervisors now, over all nodes, by kind."""

    async def load_in_all(self) -> dict[str, Sequence[int]]:
        """How busy the hosts are, in percent, by what (a mode of the CPUs, or ``memory``).

        What a tenth, a half, nine tenths and 99 of 100 hosts are at or below.
        """

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
