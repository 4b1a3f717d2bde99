"""An instance: what it holds, where, in which role, and how far its commands have come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from schemas import Shape
from worker.accounting.state.occupancy import Placement, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from uuid import UUID

    from schemas.requests import CachePolicy, ThreadPolicy

RELEASING_STATES: Final = frozenset({"shelved_offloaded", "deleted"})
"""Life-cycle states in which an instance keeps nothing on its node."""

_SHAPE_FIELDS: Final = set(Shape.model_fields)


def request_of(shape: Shape) -> str:
    """What a command asks for, as the JSON that :func:`shape_of` reads."""
    return Shape.__pydantic_serializer__.to_json(shape, include=_SHAPE_FIELDS, exclude_defaults=True).decode()


def shape_of(request: str) -> Shape:
    """What :func:`request_of` wrote."""
    return Shape.model_validate_json(request)


@dataclass(frozen=True, slots=True)
class Holding:
    """What an instance holds on one node in one role.

    ``request`` is what was asked for (:func:`request_of`), so that it can be
    asked of another node later.
    """

    node: str
    role: Role
    request: str
    placement: Placement
    claimed_at: datetime
    lease_expires_at: datetime | None = None


def packed_under(holding: Holding) -> tuple[ThreadPolicy | None, CachePolicy | None]:
    """The thread policy and the cache policy under which a holding's CPUs were given."""
    topology = shape_of(holding.request).topology if holding.placement.pins else None
    return (None, None) if topology is None else (topology.thread_policy, topology.cache)


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the ledger knows it.

    ``version`` counts its changes and is 0 while it was never stored.
    ``move`` names the open move, if one is open. ``stranded`` is the request of
    an instance whose node was removed under it, for its evacuation.
    ``deleted_at`` makes it a tombstone.
    """

    id: UUID
    version: int = 0
    project: str | None = None
    user: str | None = None
    revision: int | None = None
    state: str | None = None
    task: str | None = None
    os_type: str | None = None
    move: str | None = None
    stranded: str | None = None
    holdings: tuple[Holding, ...] = ()
    deleted_at: datetime | None = None

    def on(self, node: str) -> list[Holding]:
        """Everything held on one node."""
        return [holding for holding in self.holdings if holding.node == node]

    @property
    def claims(self) -> tuple[Holding, ...]:
        """What is claimed for it: all it holds but what an audit charged for a domain that runs where it should not."""
        if all(holding.role != "orphan" for holding in self.holdings):
            return self.holdings
        return tuple(holding for holding in self.holdings if holding.role != "orphan")

    def claims_on(self, node: str) -> list[Holding]:
        """What is claimed for it on one node."""
        return [holding for holding in self.holdings if holding.node == node and holding.role != "orphan"]

    def orphans(self, *, but_on: str | None = None) -> tuple[Holding, ...]:
        """What audits charged for its domains where nothing is claimed, on nodes other than one."""
        return tuple(holding for holding in self.holdings if holding.role == "orphan" and holding.node != but_on)

    def without_orphan(self, node: str) -> Instance:
        """With nothing charged for a stray domain on a node."""
        return replace(self, holdings=(*self.claims, *self.orphans(but_on=node)))

    def placements_on(self, node: str) -> list[Placement]:
        """The placements on one node."""
        return [holding.placement for holding in self.holdings if holding.node == node]

    def nodes(self) -> Iterator[str]:
        """The nodes it holds something on, each once."""
        return iter(dict.fromkeys(holding.node for holding in self.holdings))

    def with_role(self, role: Role) -> Holding | None:
        """The holding in a role, if there is one."""
        return next((holding for holding in self.holdings if holding.role == role), None)

    @property
    def moving(self) -> bool:
        """Whether a move is open."""
        return self.with_role("move_destination") is not None

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nobody counts on it: no tombstone, no evacuation, no state to come back to."""
        if self.holdings or self.deleted_at is not None or self.stranded is not None:
            return False
        return self.state in {None, "deleted"}

    def settled(self, role: Role) -> Instance:
        """The move ended: only the side that had ``role`` is kept, and is active.

        The new side is kept for good. The old one goes on as it was: a lease of
        its own still runs, and where its node was removed meanwhile, what it
        asked for is still known.
        """
        kept = tuple(replace(holding, role="active") for holding in self.holdings if holding.role == role)
        if role == "move_source":
            return replace(self, holdings=(*kept, *self.orphans()), move=None)
        unleased = (replace(holding, lease_expires_at=None) for holding in kept)
        return replace(self, holdings=(*unleased, *self.orphans()), move=None, stranded=None)

    def released(self) -> Instance:
        """With nothing claimed for it any more, on any node, and waiting for none.

        What audits charged because its domain runs stays until they see it gone.
        """
        return replace(self, holdings=self.orphans(), move=None, stranded=None)

    def without_lease(self, node: str) -> Instance:
        """With no lease running on what it holds on a node."""
        holdings = tuple(replace(h, lease_expires_at=None) if h.node == node else h for h in self.holdings)
        return replace(self, holdings=holdings)
