"""Nodes: registering, removing, observing them, and whether they may grow."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from worker.accounting.host.compiled import build_host
from worker.accounting.reasons.refusals import refusal
from worker.accounting.rules.decision import Decision, refuse, rejected
from worker.accounting.rules.notices import notices
from worker.accounting.rules.renaming import against_renaming, another_host, carried, replaced, unknown_node
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Node, Question

if TYPE_CHECKING:
    from datetime import datetime

    from schemas import NodePut, NodeRemove, Reason
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.instances import Instance
    from worker.accounting.state.view import Observation, View


def put_node(view: View, command: NodePut, _now: datetime) -> Decision | Question:
    """Register a node or replace its settings.

    The hypervisor is asked at once, so that the node's capacity shows; if it
    does not answer the node is registered all the same. One host is one node:
    what is registered under another name already is refused. So is a custom
    resource that a pushed inventory and the policy both name.
    """
    if (refusal := view.refused_addresses.get(command.hypervisor or "")) is not None:
        return refuse(command.node, "hypervisor_not_allowed", refusal)
    former = replaced(view, command)
    if barred := [*_told_twice(command), *against_renaming(view, command, former)]:
        return rejected(command.node, barred)
    observation = view.facts.observations.get(command.node)
    answered = observation is not None and observation.address == command.hypervisor
    if observation is not None and answered:
        if (other := _owner(view, command.node, observation)) not in {None, former}:
            return refuse(command.node, "hypervisor_taken", _taken(command.node, other or ""))
        if former is not None and (detail := another_host(view.nodes[former], observation)) is not None:
            return refuse(command.node, "invalid_request", detail)
    if command.hypervisor is not None and not answered and not command.dry_run:
        return Question(inventories=frozenset({command.node}))
    return Decision(
        "applied",
        command.node,
        instances=carried(view, former, command.node),
        settings=command,
        renamed=former,
        warnings=tuple(notices(settled(view, command, former), observation)),
    )


def _told_twice(command: NodePut) -> list[Reason]:
    """A reason for each custom resource of which a pushed inventory and the policy both say how much is there."""
    pushed = {} if command.inventory is None else command.inventory.custom
    return [
        refusal("invalid_request", f"{name} is in inventory.custom and in policy.custom: name it in one", resource=name)
        for name in sorted(pushed.keys() & command.policy.custom.keys())
    ]


def remove_node(view: View, command: NodeRemove, _now: datetime) -> Decision:
    """Remove a node; with ``force`` what instances hold there is released, and their requests kept for evacuation."""
    if command.node not in view.nodes:
        return rejected(command.node, [unknown_node(view, command.node)])
    holders = [instance for instance in view.instances.values() if instance.on(command.node)]
    if holders and not command.force:
        detail = f"{len(holders)} instances hold resources on {command.node}; move or delete them, or use force"
        return refuse(command.node, "node_in_use", detail)
    return Decision(
        "applied",
        command.node,
        instances=tuple(_stranded(holder, command.node) for holder in holders),
        removed=command.node,
    )


def _stranded(instance: Instance, node: str) -> Instance:
    """The instance without what it holds on a removed node.

    A move whose old side is gone can still be confirmed; reverted, it leaves
    the instance stranded. One whose new side is gone is undone. What an audit
    charged for a domain that nobody claimed goes without a trace.
    """
    lost = instance.claims_on(node)
    if not lost:
        return instance.without_orphan(node)
    rest = tuple(holding for holding in instance.claims if holding.node != node)
    request = instance.stranded or lost[0].request
    if not rest:
        return replace(instance, holdings=instance.orphans(), move=None, stranded=request)
    if any(holding.role == "move_destination" for holding in rest):
        return replace(instance, holdings=(*rest, *instance.orphans()), stranded=request)
    kept = (replace(holding, role="active") for holding in rest)
    return replace(instance, holdings=(*kept, *instance.orphans()), move=None)


def apply_settings(view: View, command: NodePut, former: str | None = None) -> None:
    """Make the settings of a ``node.put`` the node's own; renamed, it holds nothing before that is carried over."""
    node = view.nodes[command.node] = settled(view, command, former)
    if former is not None:
        node.occupancy = Occupancy()
    view.waiting.pop(command.node, None)
    view.former.pop(command.node, None)
    _know_host(view, node)


def settled(view: View, command: NodePut, former: str | None) -> Node:
    """The node as it is once the settings of a ``node.put`` are its own; ``former`` is the name it had until now."""
    known = view.nodes.get(command.node if former is None else former)
    node = Node(command.node, command.policy, Occupancy()) if known is None else replace(known, name=command.node)
    if command.node not in view.nodes:
        node.parked = view.waiting.get(command.node, 0)
    moved = node.hypervisor != command.hypervisor
    node.policy = command.policy
    node.hypervisor = command.hypervisor
    node.labels = command.labels
    if command.inventory is not None:
        node.inventory, node.observed_at, node.reachable = command.inventory, None, None
    elif moved:
        node.observed_at, node.reachable = None, None
    if moved and (former is None or command.hypervisor is None):
        node.host_uuid = None
    node.profile_changed = True
    observation = view.facts.observations.get(command.node)
    if observation is not None and observation.address == command.hypervisor:
        _take_in(node, observation)
    node.host = compiled(node)
    return node


def forget_host(view: View, name: str) -> None:
    """Note that a node is no machine that is known any more."""
    view.hosts = {host: owner for host, owner in view.hosts.items() if owner != name}


def _owner(view: View, name: str, observation: Observation) -> str | None:
    """The other node that the machine which answered for a node is."""
    owner = None if observation.host_uuid is None else view.hosts.get(observation.host_uuid)
    return None if owner == name else owner


def _taken(name: str, other: str) -> str:
    return (
        f"the hypervisor of {name} is that of node {other}, its host has the same UUID: use {other}, or rename it"
        " with `replaces`; if they are two hosts, give each a host_uuid of its own in its libvirtd.conf"
    )


def observe(view: View, node: Node, observation: Observation) -> None:
    """Take in what the node's hypervisor answered. No answer, or another node's host, leaves what is known as it is."""
    if node.hypervisor is None or node.hypervisor != observation.address:
        return
    if _owner(view, node.name, observation) is not None:
        node.reachable = False
    elif _take_in(node, observation):
        _know_host(view, node)
        node.profile_changed = True
        node.generation += 1
        node.host = compiled(node)


def _know_host(view: View, node: Node) -> None:
    """Note which machine a node is, if that is known."""
    forget_host(view, node.name)
    if node.host_uuid is not None:
        view.hosts[node.host_uuid] = node.name


def _take_in(node: Node, observation: Observation) -> bool:
    """Note an observation; says whether the inventory or the machine is another than before."""
    node.reachable = observation.inventory is not None
    if observation.inventory is None:
        return False
    node.observed_at = observation.at
    other_host = observation.host_uuid not in {None, node.host_uuid}
    if other_host:
        node.host_uuid = observation.host_uuid
    if observation.inventory is node.inventory or observation.inventory == node.inventory:
        return other_host
    node.inventory = observation.inventory
    return True


def compiled(node: Node) -> Host | None:
    """The node's host, compiled from its inventory and policy; ``None`` while there is no inventory."""
    if node.inventory is None:
        return None
    return build_host(node.inventory, node.policy, observed=node.hypervisor is not None)


def inventory_needed(view: View, node: Node, now: datetime) -> Question | Reason | None:
    """What stands between a node and a decision on its inventory.

    A question where what is known is too old, a reason where the hypervisor was
    asked and did not answer, nothing where the decision can be made.
    """
    if node.hypervisor is None:
        return None
    observation = view.facts.observations.get(node.name)
    if observation is not None and observation.address == node.hypervisor:
        other = _owner(view, node.name, observation)
        if observation.inventory is not None and other is None:
            return None
        detail = observation.detail if other is None else _taken(node.name, other)
        return refusal("hypervisor_unreachable", detail, node=node.name)
    age = timedelta(seconds=node.policy.max_inventory_age_seconds)
    if node.observed_at is not None and now - age <= node.observed_at <= now:
        return None
    return Question(inventories=frozenset({node.name}))
