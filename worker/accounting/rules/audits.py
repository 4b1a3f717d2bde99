"""Drift: where the ledger and a node's hypervisor disagree, and how an audit tells and fixes it.

*orphan*: a running domain that nobody claimed. *ghost*: an allocation without
its domain. *amount*, *pins*, *devices*: both are there and say different things.

Repair charges orphans that the ledger has never heard of, so that nothing else
is put where they run, and drops that charge once their domain is gone. It releases nothing that was claimed: a
domain that is missing today may be started tomorrow, and who claimed it can
delete it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from worker.accounting.rules.decision import Decision, refuse
from worker.accounting.state.instances import Holding, Instance, shape_of
from worker.accounting.state.occupancy import Placement
from worker.accounting.state.view import Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from uuid import UUID

    from schemas import Audit
    from worker.accounting.rules.looks import Look
    from worker.accounting.state.domains import Domain
    from worker.accounting.state.view import Node, View

_ORPHANED: Final = '{"resources":{"vcpus":1,"memory_mib":1}}'
"""What an orphan is taken to have asked for: nobody knows, and nobody will ask again."""

Kind = Literal["orphan", "ghost", "amount", "pins", "devices", "unreadable"]


@dataclass(frozen=True, slots=True)
class Drift:
    """One disagreement about one instance, in a sentence and, where there are two sides, both of them."""

    kind: Kind
    instance: UUID
    detail: str
    ledger: object = None
    hypervisor: object = None

    def document(self) -> dict[str, object]:
        """As it stands in an outcome."""
        sides = {} if self.ledger is None else {"ledger": self.ledger, "hypervisor": self.hypervisor}
        return {"kind": self.kind, "instance": self.instance, "detail": self.detail, **sides}


def audit(view: View, command: Audit | Look, now: datetime) -> Decision | Question:
    """Compare a node with its hypervisor; with ``repair``, charge what runs there and nobody claimed."""
    node = view.nodes.get(command.node)
    if node is None:
        return refuse(command.node, "node_unknown", f"node {command.node} is not registered")
    if node.hypervisor is None:
        return refuse(command.node, "invalid_request", f"node {command.node} has no hypervisor to be compared with")
    if command.node not in view.facts.listings:
        return Question(listings=frozenset({command.node}))
    listing = view.facts.listings[command.node]
    if listing is None:
        return refuse(command.node, "hypervisor_unreachable", f"the hypervisor of {command.node} does not answer")
    domains = {domain.uuid: domain for domain in listing}
    holders = [instance for instance in view.instances.values() if instance.on(command.node)]
    drift = tuple(_drift(command.node, domains, holders))
    repaired = tuple(_repaired(view, node, domains, holders, now)) if command.repair else ()
    return Decision("applied", command.node, instances=repaired, drift=tuple(found.document() for found in drift))


def _drift(node: str, domains: dict[UUID, Domain], holders: Iterable[Instance]) -> Iterator[Drift]:
    claimed = set()
    for holder in holders:
        claimed.add(holder.id)
        domain = domains.get(holder.id)
        yield from _compare(node, holder, domain)
    for key, domain in sorted(domains.items()):
        if key not in claimed and domain.active:
            detail = f"domain {domain.name!r} runs on {node} and nobody claimed it"
            yield Drift("orphan", key, detail, {}, {"vcpus": domain.vcpus, "memory_mib": domain.memory_mib})


def _compare(node: str, holder: Instance, domain: Domain | None) -> Iterator[Drift]:
    """What one instance's holding and its domain say differently. A size about to change is not compared."""
    if holder.with_role("orphan") is not None:
        if domain is not None and domain.active:
            yield Drift("orphan", holder.id, f"domain {domain.name!r} runs on {node}, charged, and nobody claimed it")
        return
    held = holder.with_role("active")
    if held is None or held.node != node:
        return
    if domain is None:
        yield Drift("ghost", holder.id, f"claimed at {held.claimed_at.isoformat()}, and {node} has no such domain")
    elif domain.fault is not None:
        yield Drift("unreadable", holder.id, f"its domain's description cannot be read: {domain.fault}")
    elif domain.active:
        yield from _compare_amounts(held, holder, domain)


def _compare_amounts(held: Holding, holder: Instance, domain: Domain) -> Iterator[Drift]:
    asked = shape_of(held.request).resources
    sides = (
        ("amount", "vCPUs", asked.vcpus, domain.vcpus),
        ("amount", "MiB of memory", asked.memory_mib, domain.memory_mib),
        ("devices", "devices", sorted(held.placement.devices), sorted(domain.devices)),
    )
    for kind, what, ours, theirs in sides:
        if ours != theirs:
            yield Drift(kind, holder.id, f"{what}: {ours} claimed, {theirs} in the domain", ours, theirs)  # type: ignore[arg-type] # a literal of the tuple above
    if not domain.pinned_cpus <= held.placement.pins:
        own, pinned = sorted(held.placement.pins), sorted(domain.pinned_cpus)
        yield Drift("pins", holder.id, f"pinned to CPUs {pinned}, of which only {own} are its own", own, pinned)


def _repaired(
    view: View, node: Node, domains: dict[UUID, Domain], holders: Iterable[Instance], now: datetime
) -> Iterator[Instance]:
    claimed = {holder.id for holder in holders}
    for holder in holders:
        orphaned = holder.with_role("orphan")
        domain = domains.get(holder.id)
        if orphaned is not None and (domain is None or not domain.active):
            yield holder.released()
    free_pins, free_devices = set(node.occupancy.pinned), set(node.occupancy.held)
    for key, domain in sorted(domains.items()):
        if key in claimed or key in view.instances or not domain.active or domain.fault is not None:
            continue
        pins = domain.pinned_cpus - free_pins
        devices = tuple(address for address in domain.devices if address not in free_devices)
        free_pins |= pins
        free_devices.update(devices)
        placement = Placement(_charge(domain, pins), pins, devices)
        holding = Holding(node.name, "orphan", _ORPHANED, placement, now)
        yield Instance(key, holdings=(holding,))


def _charge(domain: Domain, pins: frozenset[int]) -> dict[str, int]:
    """What an orphan is charged: pinned CPUs as such, all other vCPUs as shared ones."""
    amounts = {"vcpus": domain.vcpus - len(pins), "pcpus": len(pins), "memory_mib": domain.memory_mib}
    return {name: amount for name, amount in amounts.items() if amount > 0}
