"""How many times over a node could take one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from worker.accounting.host.compiled import without_pinned
from worker.accounting.placing.place import place
from worker.accounting.reasons.refusals import refusal
from worker.accounting.state.occupancy import Occupancy, Placement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas import Reason
    from worker.accounting.host.compiled import Host
    from worker.accounting.placing.place import Request
    from worker.accounting.state.view import Node

_SOMEBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Room:
    """How often a request fits, and why it does not fit once more; without ``reasons`` the counting was ended."""

    times: int
    reasons: tuple[Reason, ...] = ()


def obstacles(node: Node) -> list[Reason]:
    """What keeps every claim off a node today, whatever it asks for."""
    found = []
    if not node.policy.enabled:
        found.append(refusal("node_disabled", f"node {node.name} is disabled", node=node.name))
    if node.hypervisor is not None and node.reachable is False:
        detail = "the hypervisor did not answer when it was asked last: a claim would be parked"
        found.append(refusal("hypervisor_unreachable", detail, node=node.name))
    elif node.parked:
        detail = f"a claim would wait behind {node.parked} parked commands"
        found.append(refusal("hypervisor_unreachable", detail, node=node.name))
    elif node.host is None:
        found.append(refusal("hypervisor_unreachable", "the node was never observed", node=node.name))
    return found


def room_for(host: Host, occupancy: Occupancy, shape: Request, most: int) -> Room:
    """Place a request again and again, each beside those before it, at most so many times."""
    beside = Occupancy(dict(occupancy.used), dict(occupancy.pinned), dict(occupancy.held))
    times = 0
    while times < most:
        result = place(host, beside, shape)
        if not isinstance(result, Placement):
            return Room(times, tuple(result))
        more = 1
        if shape.topology is None and not shape.devices:
            # nothing but amounts: the last that fits is known at once, and tried next to hear why no more do
            more = min(most - times, _amounts(without_pinned(host, beside.pinned).ceiling, beside.used, result.charge))
        for name, amount in result.charge.items():
            beside.used[name] = beside.used.get(name, 0) + amount * more
        beside.pinned.update(dict.fromkeys(result.pins, _SOMEBODY))
        beside.held.update(dict.fromkeys(result.devices, _SOMEBODY))
        times += more
    return Room(times)


def _amounts(ceiling: Mapping[str, int], used: Mapping[str, int], charge: Mapping[str, int]) -> int:
    return max(1, min((ceiling[name] - used.get(name, 0)) // amount for name, amount in charge.items() if amount))
