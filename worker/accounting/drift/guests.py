"""A claimed guest held against its domain: what was given and is used as given is never told."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from worker.accounting.drift.found import Drift
from worker.accounting.drift.memory import memory_drift
from worker.accounting.drift.pins import pins_drift
from worker.accounting.state.instances import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.accounting.drift.found import Kind
    from worker.accounting.state.domains import Domain
    from worker.accounting.state.instances import Holding, Instance
    from worker.accounting.state.occupancy import Placement
    from worker.accounting.state.view import Node


def guest_drift(node: Node, holder: Instance, domain: Domain | None) -> Iterator[Drift]:
    """What an instance's claim and its domain say differently. A size about to change is not compared."""
    held = holder.with_role("active")
    if held is None or held.node != node.name:
        return
    if domain is None:
        detail = f"claimed at {held.claimed_at.isoformat()}, and {node.name} has no such domain"
        yield Drift(node.name, "ghost", holder.id, detail)
    elif domain.fault is not None:
        detail = f"its domain's description cannot be read: {domain.fault}"
        yield Drift(node.name, "unreadable", holder.id, detail)
    elif domain.active:
        yield from _amounts(node.name, held, holder, domain)
        yield from memory_drift(node, holder, held, domain)
        yield from pins_drift(node, holder, held, domain)
        yield from _devices(node.name, held, holder, domain)


def _amounts(node: str, held: Holding, holder: Instance, domain: Domain) -> Iterator[Drift]:
    asked = shape_of(held.request).resources
    sides = (("vCPUs", asked.vcpus, domain.vcpus), ("MiB of memory", asked.memory_mib, domain.memory_mib))
    for what, ours, theirs in sides:
        if ours != theirs:
            yield differing(node, "amount", holder, what, ours, theirs)


def differing(node: str, kind: Kind, holder: Instance, what: str, ours: Any, theirs: Any) -> Drift:
    """Two sides of one thing."""
    return Drift(node, kind, holder.id, f"{what}: {ours} claimed, {theirs} in the domain", ours, theirs)


def _devices(node: str, held: Holding, holder: Instance, domain: Domain) -> Iterator[Drift]:
    """Other devices; those that the host does not tell of may be those that are missing, if nothing else differs."""
    ours = Counter(_given(held.placement))
    theirs = Counter([address.lower() for address in domain.devices])
    theirs += Counter([f"{parent.lower()} {mdev_type}" for parent, mdev_type in domain.mediated])
    missing, more = ours - theirs, theirs - ours
    if more or missing.total() != len(domain.unknown):
        found = [*sorted(theirs.elements()), *domain.unknown]
        yield differing(node, "devices", holder, "devices", sorted(ours.elements()), found)


def _given(placement: Placement) -> Iterator[str]:
    """Addresses of devices held whole; of mediated ones their parent and type, once for each."""
    yield from (address.lower() for address in placement.devices)
    for counter, amount in placement.charge.items():
        if counter.startswith("mdev/"):
            parent, _, mdev_type = counter[5:].partition("/")
            yield from [f"{parent.lower()} {mdev_type}"] * amount
