"""Which nodes could take a claim, how many times over, and why the others cannot: by what the ledger knows now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from pydantic_core import from_json, to_json

from schemas import VERSION, Claim, MalformedCommandError, parse_command
from worker.accounting.placing.repeat import Room, obstacles, room_for
from worker.accounting.reasons.refusals import refusal
from worker.errors import UsageError
from worker.ledger.load import node_loads
from worker.ledger.nodes import walk_nodes

if TYPE_CHECKING:
    import asyncpg

    from schemas import Reason
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.view import Node
    from worker.operations.reporting import Progress

Order = Literal["room", "load"]
"""By how many times a node could take the claim, or by how busy its host is."""

_ANY_NODE: Final = "any"
_NOBODY: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Fit:
    """What one node could do for the claim. ``observed_at`` says how old what is known of it is.

    ``busy_percent`` is how busy its CPUs were when it was looked at last, ``None`` where that is not known.
    """

    node: str
    times: int
    counted_out: bool
    reasons: Sequence[Reason]
    observed_at: datetime | None
    busy_percent: int | None = None


@dataclass(slots=True)
class Fitting:
    """Answers for one claim; nodes that are alike in every way are asked once."""

    claim: Claim
    most: int
    _known: dict[object, tuple[Host, Room]] = field(default_factory=dict)
    """By what the nodes have and hold. Each answer keeps its host, whose ``id`` would else go to another one."""

    def on(self, node: Node) -> Fit:
        """What this node could do. What keeps every claim off it is told beside what this one lacks."""
        against = obstacles(node)
        room = Room(0) if node.host is None else self._room(node)
        if against:
            return Fit(node.name, 0, False, [*against, *(() if room.times else room.reasons)], node.observed_at)
        return Fit(node.name, room.times, not room.reasons, room.reasons, node.observed_at)

    def _room(self, node: Node) -> Room:
        if node.host is None:
            raise AssertionError("only an observed node has room")
        taken = node.occupancy
        key = (id(node.host), frozenset(taken.used.items()), frozenset(taken.pinned), frozenset(taken.held.items()))
        if key not in self._known:
            self._known[key] = node.host, room_for(node.host, taken, self.claim.members()[0], self.most)
        return self._known[key][1]


async def fits(
    pool: asyncpg.Pool, claim: Claim, names: Sequence[str] | None, *, most: int, progress: Progress, by: Order = "room"
) -> list[Fit]:
    """What all nodes, or those of these names, could do for a claim; the most able first, then by name.

    With ``by`` the load, those that could are in the order of how busy they are, the least first.
    """
    loads = await node_loads(pool, names)
    fitting, found = Fitting(claim, most), []
    with progress("placing") as advance:
        async for page in walk_nodes(pool, names):
            for node in page:
                load = loads.get(node.name)
                found.append(replace(fitting.on(node), busy_percent=None if load is None else load.busy_percent))
                advance(1)
    there = {one.node for one in found}
    found += [_unknown(name) for name in names or () if name not in there]
    return sorted(found, key=by_load if by == "load" else lambda one: (-one.times, one.node))


def by_load(one: Fit) -> tuple[object, ...]:
    """Where a node comes among others: what could take the claim first, the least busy of it, unknown load last."""
    busy = one.busy_percent
    return one.times == 0, busy is None, busy, -one.times, one.node


def read_claim(text: bytes) -> tuple[Claim, list[str] | None]:
    """The claim, completed with whatever does not matter here, and the nodes it names; ``None`` for all.

    Raises:
        UsageError: it is no claim, or one for several instances.
    """
    try:
        given = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise UsageError(f"the claim is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError("the claim is not a JSON object")
    rest = {"version": VERSION, "id": _NOBODY, "issued_at": "2000-01-01T00:00:00Z", "kind": "claim"}
    rest |= {"node": _ANY_NODE, "project": "any", "instance": _NOBODY}
    try:
        claim = parse_command(to_json({**rest, **given}))
    except MalformedCommandError as error:
        raise UsageError(f"the claim is not one: {error.detail}") from None
    if not isinstance(claim, Claim) or claim.instances is not None:
        raise UsageError("fit answers for a claim of one instance")
    named = ([claim.node] if "node" in given else []) + claim.candidates
    return claim, list(dict.fromkeys(named)) or None


def _unknown(name: str) -> Fit:
    return Fit(name, 0, False, [refusal("node_unknown", f"node {name} is not registered", node=name)], None)
