"""Claims of several instances: where each of them lies on its node, so that all have room."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from worker.accounting.placing.place import place, requested
from worker.accounting.placing.together import place_together
from worker.accounting.reasons.refusals import too_complex
from worker.accounting.rules.fit import fit
from worker.accounting.state.occupancy import Placement, planned
from worker.accounting.state.view import Question
from worker.accounting.work import TooComplexError, Work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schemas import ClaimMember, Reason
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.instances import Holding
    from worker.accounting.state.occupancy import Counters
    from worker.accounting.state.view import View

Results = dict[int, "Placement | list[Reason]"]
"""The place of each member, or what stands against it, by its number."""

_CONTENDED: Final = frozenset({"insufficient", "no_numa_fit", "no_device_fit"})
"""What may be had once others of the same claim lie elsewhere."""


def place_members(view: View, members: Sequence[ClaimMember], now: datetime, work: Work) -> Results | Question:
    """A place for each member: one after the other where that is a way, else for all on a node at once.

    Members after the one that met the bound on work have no result.
    """
    results = _one_by_one(view, members, now, work)
    if isinstance(results, Question):
        return results
    for name in dict.fromkeys(members[number].node for number, one in results.items() if isinstance(one, list)):
        if not work.exhausted:
            results |= _at_once(view, name, members, results, work)
    return results


def orphaned(view: View, member: ClaimMember, node: str) -> Sequence[Holding]:
    """What an audit charged for the instance on a node, which its claim takes over."""
    instance = view.instances.get(member.instance)
    return instance.on(node) if instance is not None else ()


def _one_by_one(view: View, members: Sequence[ClaimMember], now: datetime, work: Work) -> Results | Question:
    """A place for each member, by its number, beside those before it; not of those after the bound on work was met."""
    question = Question()
    results: Results = {}
    scratch = replace(view, nodes=dict(view.nodes))
    for number, member in enumerate(members):
        result = fit(scratch, member.node, member, now, work, orphaned(view, member, member.node))
        if isinstance(result, Question):
            question |= result
            continue
        results[number] = result
        if work.exhausted:
            break
        node = scratch.nodes.get(member.node)
        if node is not None and node.host is not None:
            taken = Placement(_as_given(node.host, member, result)) if isinstance(result, list) else result
            scratch.nodes[node.name] = replace(node, occupancy=planned(node.occupancy, member.instance, taken))
    return question if question.inventories else results


def _as_given(host: Host, member: ClaimMember, reasons: Sequence[Reason]) -> Counters:
    """What a refused member takes of what there is: once it is given what it lacks, others lack the rest."""
    short = {why.resource: why.short_by or 0 for why in reasons if why.code == "insufficient"}
    taken = {name: max(0, amount - short.get(name, 0)) for name, amount in requested(host, member).items()}
    return {name: amount for name, amount in taken.items() if amount}


def _at_once(
    view: View,
    name: str,
    members: Sequence[ClaimMember],
    results: Results,
    work: Work,
) -> Results:
    """Other places for the members on a node of which some found none, if all have room in some other order.

    Nothing where they have not, or where one would be refused alone as well.
    """
    numbers = [number for number, member in enumerate(members) if member.node == name]
    refused = {number: why for number in numbers if isinstance(why := results[number], list)}
    node = view.nodes.get(name)
    if len(numbers) == 1 or node is None or node.host is None:
        return {}
    if any(why.code not in _CONTENDED for reasons in refused.values() for why in reasons):
        return {}
    if any(orphaned(view, members[number], name) for number in numbers):
        return {}
    try:
        if any(isinstance(place(node.host, node.occupancy, members[number], work=work), list) for number in refused):
            return {}
        found = place_together(node.host, node.occupancy, [members[number] for number in numbers], work)
    except TooComplexError:
        unknown = too_complex(f"whether all members of the claim on {name} have room together is not known")
        return {number: [unknown.model_copy(update={"node": name})] for number in refused}
    return {} if found is None else {numbers[position]: placement for position, placement in found.items()}
