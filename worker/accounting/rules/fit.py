"""Whether a node takes a request: known, observed, enabled, and with room for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.accounting.placing.growth import grows
from worker.accounting.placing.place import place
from worker.accounting.placing.staying import as_it_lies
from worker.accounting.reasons.refusals import refusal
from worker.accounting.reasons.traits import trait_breaches
from worker.accounting.rules.nodes import inventory_needed
from worker.accounting.rules.renaming import unknown_node
from worker.accounting.state.instances import packed_under, shape_of
from worker.accounting.state.occupancy import merged
from worker.accounting.state.view import Question

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schemas import Reason, Shape
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.instances import Holding
    from worker.accounting.state.occupancy import Placement
    from worker.accounting.state.view import Node, View
    from worker.accounting.work import Work

_ABOUT_PLACE: Final = frozenset({"no_numa_fit", "no_device_fit", "too_complex"})
"""Refusals that hold back nothing of what stays where it is."""


def fit(
    view: View,
    name: str,
    shape: Shape,
    now: datetime,
    work: Work,
    own: Sequence[Holding] = (),
) -> Placement | Question | list[Reason]:
    """Place a request on a node, beside what others hold there.

    ``own`` is what the instance itself holds on the node: it may be used again,
    and what does not grow beyond it is never refused. ``work`` is what one
    command may spend on all it asks.
    """
    node = view.nodes.get(name)
    if node is None:
        return [unknown_node(view, name)]
    missing = inventory_needed(view, node, now)
    if isinstance(missing, Question):
        return missing
    if missing is not None:
        return [missing] if own or node.policy.enabled else [missing, _disabled(node)]
    result = _fit_again(node, shape, own, work) if own else _fit_new(node, shape, work)
    if isinstance(result, list):
        return [why if why.node else why.model_copy(update={"node": name}) for why in result]
    return result


def _fit_new(node: Node, shape: Shape, work: Work) -> Placement | list[Reason]:
    if node.host is None:
        return [refusal("hypervisor_unreachable", "the node was never observed", node=node.name)]
    result = place(node.host, node.occupancy, shape, work=work)
    return result if node.policy.enabled else _refused(node, result)


def _fit_again(node: Node, shape: Shape, own: Sequence[Holding], work: Work) -> Placement | list[Reason]:
    if node.host is None:
        return [refusal("hypervisor_unreachable", "the node was never observed", node=node.name)]
    held = [holding.placement for holding in own]
    result = _placed_again(node, node.host, shape, own, held, work)
    if node.policy.enabled and shape.traits is None:
        return result
    if not grows(node.host, held, shape, None if isinstance(result, list) else result):
        return result
    breaches = [] if shape.traits is None else trait_breaches(node.host.traits, shape.traits, work.most)
    if node.policy.enabled and not breaches:
        return result
    against = [*(result if isinstance(result, list) else ()), *breaches]
    return against if node.policy.enabled else [_disabled(node), *against]


def _placed_again(
    node: Node, host: Host, shape: Shape, own: Sequence[Holding], held: Sequence[Placement], work: Work
) -> Placement | list[Reason]:
    """A place beside what others hold; where there is none, that where it lies if it asks for no more."""
    thread_policy, cache = packed_under(own[0]) if shape.topology is not None else (None, None)
    result = place(
        host,
        node.occupancy.without(held),
        shape.model_copy(update={"traits": None}) if shape.traits is not None else shape,
        own=merged(held),
        held=held,
        thread_policy=thread_policy,
        cache=cache,
        work=work,
    )
    if isinstance(result, list) and all(why.code in _ABOUT_PLACE for why in result):
        return as_it_lies(host, held[0], shape_of(own[0].request), shape) or result
    return result


def _refused(node: Node, result: Placement | list[Reason]) -> list[Reason]:
    """Refused by a disabled node, and by all that stands against the request besides."""
    return [_disabled(node), *(result if isinstance(result, list) else ())]


def _disabled(node: Node) -> Reason:
    return refusal("node_disabled", f"node {node.name} is disabled: nothing on it may grow", node=node.name)


def unreachable(reasons: Sequence[Reason]) -> bool:
    """Whether a refusal says no more than that a hypervisor does not answer."""
    return any(why.code == "hypervisor_unreachable" for why in reasons)
