"""An audit: hold a node against its hypervisor, tell where they disagree, and charge what runs there unclaimed.

Repair charges strangers, so that nothing else is put where they run, and drops
that charge once their domain is gone. It releases nothing that was claimed: a domain
that is missing today may be started tomorrow, and who claimed it can delete it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from schemas.cpuset import parse_cpu_set
from worker.accounting.drift.guests import guest_drift
from worker.accounting.drift.hosts import host_drift
from worker.accounting.drift.strangers import charged, stranger_drift
from worker.accounting.rules.decision import Decision, refuse, rejected
from worker.accounting.rules.nodes import inventory_needed
from worker.accounting.rules.renaming import unknown_node
from worker.accounting.state.instances import Holding, Instance
from worker.accounting.state.occupancy import beside
from worker.accounting.state.view import Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from uuid import UUID

    from schemas import Audit, Reason
    from worker.accounting.drift.found import Drift
    from worker.accounting.rules.looks import Look
    from worker.accounting.state.domains import Domain
    from worker.accounting.state.view import Node, View

_ORPHANED: Final = '{"resources":{"vcpus":1,"memory_mib":1}}'
"""What an orphan is taken to have asked for: nobody knows, and nobody will ask again."""


def audit(view: View, command: Audit | Look, now: datetime) -> Decision | Question:
    """Compare a node with its hypervisor; with ``repair``, charge what runs there and is not claimed there.

    An audit waits for nothing: one that comes while others wait for the hypervisor
    is refused, and the next one looks.
    """
    against = _against(view, command)
    if against is not None:
        return against
    node = view.nodes[command.node]
    missing = _missing(view, node, now)
    if isinstance(missing, Question):
        return missing
    listing = view.facts.listings[node.name]
    if missing is not None or listing is None:
        detail = missing.detail if missing is not None else f"the hypervisor of {node.name} does not answer"
        return refuse(command.node, "hypervisor_unreachable", detail)
    domains = {domain.uuid: domain for domain in listing}
    drift = tuple(found.document() for found in _drift(view, node, domains))
    repaired = tuple(_repaired(view, node, domains, now)) if command.repair else ()
    return Decision("applied", command.node, instances=repaired, drift=drift)


def _against(view: View, command: Audit | Look) -> Decision | None:
    """Why a node cannot be compared with anything now, whatever its hypervisor says."""
    node = view.nodes.get(command.node)
    if node is None:
        return rejected(command.node, [unknown_node(view, command.node)])
    if node.hypervisor is None:
        return refuse(command.node, "invalid_request", f"node {command.node} has no hypervisor to be compared with")
    if node.parked:
        detail = f"{node.parked} commands wait for the hypervisor of {node.name}; it is looked at once they are done"
        return refuse(command.node, "hypervisor_unreachable", detail)
    return None


def _missing(view: View, node: Node, now: datetime) -> Question | Reason | None:
    """What is to be asked first: every domain, and with that what the host has, where that is not known or too old."""
    needed = inventory_needed(view, node, now)
    if node.name not in view.facts.listings:
        listing = Question(listings=frozenset({node.name}))
        return needed | listing if isinstance(needed, Question) else listing
    return None if isinstance(needed, Question) else needed


def _strangers(view: View, node: Node, domains: Mapping[UUID, Domain]) -> Iterator[Domain]:
    """The running domains that nothing is claimed for on the node."""
    for key, domain in sorted(domains.items()):
        instance = view.instances.get(key)
        if domain.active and (instance is None or not instance.claims_on(node.name)):
            yield domain


def _drift(view: View, node: Node, domains: Mapping[UUID, Domain]) -> Iterator[Drift]:
    for holder in view.instances.values():
        if holder.claims_on(node.name):
            yield from guest_drift(node, holder, domains.get(holder.id))
            yield from host_drift(node, holder)
    for domain in _strangers(view, node, domains):
        yield stranger_drift(node.name, view.instances.get(domain.uuid), domain)


def _repaired(view: View, node: Node, domains: Mapping[UUID, Domain], now: datetime) -> Iterator[Instance]:
    """Give up what is charged for domains that are gone, then charge those that run, each beside all others.

    One that cannot be read keeps what it is charged: what it uses is not known, and so not less.
    """
    strangers = {domain.uuid: domain for domain in _strangers(view, node, domains)}
    occupancy = node.occupancy
    for holder in _orphans(view, node):
        if holder.id not in strangers:
            occupancy = occupancy.without(holder.placements_on(node.name))
            yield holder.without_orphan(node.name)
    if node.host is None or node.inventory is None:
        return
    online = parse_cpu_set(node.inventory.cpus)
    for domain in strangers.values():
        instance = view.instances.get(domain.uuid, Instance(domain.uuid))
        if domain.fault is not None:
            continue
        rest = occupancy.without(instance.placements_on(node.name))
        placement = charged(node.host, online, rest, domain)
        occupancy = beside(rest, domain.uuid, placement)
        before = instance.on(node.name)
        if [holding.placement for holding in before] != [placement]:
            since = before[0].claimed_at if before else now
            holding = Holding(node.name, "orphan", _ORPHANED, placement, since)
            yield replace(instance, holdings=(*instance.without_orphan(node.name).holdings, holding))


def _orphans(view: View, node: Node) -> Iterable[Instance]:
    """The instances that are charged on the node for a domain that is not claimed there."""
    return [holder for holder in view.instances.values() if holder.on(node.name) and not holder.claims_on(node.name)]
