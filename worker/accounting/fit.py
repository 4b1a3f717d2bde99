"""Whether a node takes a request: known, observed, enabled, and with room for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.decision import reason
from worker.accounting.nodes import inventory_needed
from worker.accounting.place import place
from worker.accounting.state import merged
from worker.accounting.view import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schemas import Reason, Shape
    from worker.accounting.state import Placement
    from worker.accounting.view import Node, View
    from worker.accounting.work import Work


def fit(
    view: View, name: str, shape: Shape, now: datetime, work: Work, own: Sequence[Placement] = ()
) -> Placement | Question | list[Reason]:
    """Place a request on a node, beside what others hold there.

    ``own`` is what the instance itself holds on the node: it may be used again,
    and what does not grow beyond it is never refused. ``work`` is what one
    command may spend on all it asks.
    """
    node = view.nodes.get(name)
    if node is None:
        return [reason("node_unknown", f"node {name} is not registered", node=name)]
    missing = inventory_needed(view, node, now)
    if isinstance(missing, Question):
        return missing
    if missing is not None:
        return [missing]
    result = _fit_again(node, shape, own, work) if own else _fit_new(node, shape, work)
    if isinstance(result, list):
        return [why if why.node else why.model_copy(update={"node": name}) for why in result]
    return result


def _fit_new(node: Node, shape: Shape, work: Work) -> Placement | list[Reason]:
    if not node.policy.enabled:
        return [_disabled(node)]
    if node.host is None:
        return [reason("hypervisor_unreachable", "the node was never observed", node=node.name)]
    return place(node.host, node.occupancy, shape, work=work)


def _fit_again(node: Node, shape: Shape, own: Sequence[Placement], work: Work) -> Placement | list[Reason]:
    if node.host is None:
        return [reason("hypervisor_unreachable", "the node was never observed", node=node.name)]
    held = merged(own)
    result = place(node.host, node.occupancy.without(own), shape, own=held, held=own, work=work)
    if isinstance(result, list) or node.policy.enabled:
        return result
    grows = any(amount > held.get(counter, 0) for counter, amount in result.charge.items())
    return [_disabled(node)] if grows else result


def _disabled(node: Node) -> Reason:
    return reason("node_disabled", f"node {node.name} is disabled: nothing on it may grow", node=node.name)


def unreachable(reasons: Sequence[Reason]) -> bool:
    """Whether a refusal says no more than that a hypervisor does not answer."""
    return any(why.code == "hypervisor_unreachable" for why in reasons)
