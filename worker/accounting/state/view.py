"""What a decision may look at: nodes, instances, and what the hypervisors said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from schemas import Inventory, Policy
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.domains import Domain, DomainState
    from worker.accounting.state.instances import Instance
    from worker.accounting.state.load import Load
    from worker.accounting.state.occupancy import Occupancy


@dataclass(slots=True)
class Node:
    """A hypervisor host as the ledger knows it.

    ``stamp`` is random, and another for each change that counts in ``generation``.
    ``host`` is compiled from ``inventory`` and ``policy`` and is ``None`` until
    the node was observed once. ``parked`` counts the commands that wait for
    its hypervisor and hold back those behind them.
    """

    name: str
    policy: Policy
    occupancy: Occupancy
    generation: int = 0
    stamp: int = 0
    id: int | None = None
    hypervisor: str | None = None
    host_uuid: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    inventory: Inventory | None = None
    host: Host | None = None
    failed_builds: int = 0
    parked: int = 0
    reachable: bool | None = None
    observed_at: datetime | None = None
    profile_changed: bool = False


class Renaming(NamedTuple):
    """A node that was given another name; ``id`` is its own, None where it was never stored."""

    id: int | None
    former: str
    name: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What the hypervisor at ``address`` said of its inventory; with ``inventory`` null it did not answer.

    ``host_uuid`` is the machine's own, where it tells one.
    """

    at: datetime
    address: str | None
    inventory: Inventory | None
    detail: str = ""
    host_uuid: UUID | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """What a worker saw of a node's domains without being asked; ``None`` if the hypervisor did not answer.

    ``generation`` is that of the node from before it was looked at, ``address``
    where it was; ``load`` is how busy the host is, where it tells.
    """

    generation: int
    address: str
    listing: Sequence[Domain] | None
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What must be known before a command can be decided.

    Inventories of nodes, states of single domains, and listings of all domains of nodes.
    """

    inventories: frozenset[str] = frozenset()
    domains: frozenset[tuple[str, UUID]] = frozenset()
    listings: frozenset[str] = frozenset()

    def __or__(self, other: Question) -> Question:
        return Question(
            self.inventories | other.inventories, self.domains | other.domains, self.listings | other.listings
        )


@dataclass(slots=True)
class Facts:
    """Answers of hypervisors. A domain's state or a listing is ``None`` where the hypervisor did not answer.

    ``sights`` are listings that no command asked for.
    """

    observations: dict[str, Observation] = field(default_factory=dict)
    domains: dict[tuple[str, UUID], DomainState | None] = field(default_factory=dict)
    listings: dict[str, Sequence[Domain] | None] = field(default_factory=dict)
    sights: dict[str, Sight] = field(default_factory=dict)

    def update(self, other: Facts) -> None:
        """Take over another set of answers."""
        self.observations.update(other.observations)
        self.domains.update(other.domains)
        self.listings.update(other.listings)
        self.sights.update(other.sights)


@dataclass(slots=True)
class View:
    """The part of the ledger that a batch of commands touches, and that its decisions change.

    Every node and instance that a command names is looked up before: one that
    is missing here does not exist. Of nodes that are to be removed, renamed or audited,
    every instance that holds something there is in it. ``waiting`` counts what is
    parked for nodes that are not there: it holds others up again once they are;
    ``former`` gives of such names the node that had them, by its name now.
    ``hosts`` tells of machines that answered which nodes they are.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    instances: dict[UUID, Instance] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    removed: list[Node] = field(default_factory=list)
    renamed: list[Renaming] = field(default_factory=list)
    former: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    refused_addresses: dict[str, str] = field(default_factory=dict)
    hosts: dict[UUID, str] = field(default_factory=dict)
