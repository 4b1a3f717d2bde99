"""Renaming a node: it keeps its identity and all that it holds, and is known by another name from then on.

Instances are carried over as by a move of each: released under the old name and
charged under the new one, in two lines of the ledger, so that the history of
either name adds up by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from worker.accounting.reasons.refusals import refusal
from worker.accounting.state.view import Renaming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas import NodePut, Reason
    from worker.accounting.state.instances import Instance
    from worker.accounting.state.view import Node, Observation, View


def replaced(view: View, command: NodePut) -> str | None:
    """The name that a ``node.put`` takes from a node; None where it takes none, or has taken it already."""
    done = command.node in view.nodes and view.former.get(command.replaces or "") == command.node
    return None if done else command.replaces


def against_renaming(view: View, command: NodePut, former: str | None) -> Iterator[Reason]:
    """Why the node ``former`` cannot be given the name of a ``node.put``.

    What waits for its hypervisor was sent to its old name and would be refused:
    it is to be answered before.
    """
    if former is None:
        return
    if former not in view.nodes:
        yield unknown_node(view, former)
    elif count := view.nodes[former].parked:
        detail = (
            f"{count} commands wait for the hypervisor of {former}: have it answer first, with a node.put of {former}"
        )
        yield refusal("node_in_use", detail, node=former)
    if command.node in view.nodes:
        detail = f"node {command.node} is registered beside {former}: remove one of them, or leave replaces out"
        yield refusal("node_in_use", detail, node=command.node)


def unknown_node(view: View, name: str) -> Reason:
    """No node has this name; one that had it is named as it is called now."""
    now = view.former.get(name)
    detail = f"node {name} is not registered" if now is None else f"node {name} was renamed to {now}: use that name"
    return refusal("node_unknown", detail, node=name)


def another_host(node: Node, observation: Observation) -> str | None:
    """That a machine is not the one a node is, where both are known; what a node holds stays on its machine."""
    if None in {node.host_uuid, observation.host_uuid} or node.host_uuid == observation.host_uuid:
        return None
    return (
        f"the hypervisor is another host than that of {node.name}, whose UUID is {node.host_uuid}: if its board was"
        f" replaced, put {node.name} with the new address first and rename it then"
    )


def carried(view: View, former: str | None, name: str) -> tuple[Instance, ...]:
    """Every instance of a node that is renamed, holding under its new name what it held there."""
    if former is None:
        return ()
    return tuple(_carried(instance, former, name) for instance in view.instances.values() if instance.on(former))


def _carried(instance: Instance, former: str, name: str) -> Instance:
    holdings = (replace(held, node=name) if held.node == former else held for held in instance.holdings)
    return replace(instance, holdings=tuple(holdings))


def leave_name(view: View, former: str, name: str) -> Node:
    """Note that a node has another name; the one under its old name, of which nothing is left, is given back."""
    view.former = {known: name if now == former else now for known, now in view.former.items()}
    view.former[former] = name
    view.renamed.append(Renaming(view.nodes[name].id, former, name))
    view.waiting[former] = 0
    return view.nodes.pop(former)
