"""Claims: one instance on one node, on the first of several that fits, or several all or none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from worker.accounting.reasons.refusals import Collected, refusal
from worker.accounting.rules.decision import Decision, rejected
from worker.accounting.rules.fit import fit, unreachable
from worker.accounting.rules.gangs import orphaned, place_members
from worker.accounting.state.instances import Holding, Instance, request_of
from worker.accounting.state.occupancy import Placement
from worker.accounting.state.view import Question
from worker.accounting.work import MOST_REASONS, Work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from schemas import Abort, Claim, ClaimMember, Reason
    from worker.accounting.state.view import View


_LISTED_IN_ALL: Final = 2048
"""Reasons of one sort that are built for all nodes of a claim together, so that it takes a bounded time to refuse."""


def claim(view: View, command: Claim, now: datetime) -> Decision | Question:
    """Charge a node, or nodes, for new instances."""
    members = command.members()
    refusals = [
        why if command.instances is None else _about(member, why) for member in members for why in _barred(view, member)
    ]
    if refusals:
        return rejected(command.node, refusals)
    if command.instances is not None:
        return _claim_group(view, command, members, now)
    return _claim_one(view, command, members[0], now)


def _claim_one(view: View, command: Claim, member: ClaimMember, now: datetime) -> Decision | Question:
    """Take the first of the candidates that fits; refuse with the reasons of all.

    One that others wait for already is passed over, so that nothing goes ahead of them there.
    """
    refusals = Collected()
    names = dict.fromkeys((command.node, *command.candidates))
    result: Placement | Question | list[Reason] = []
    work = Work(most=min(MOST_REASONS, _LISTED_IN_ALL // len(names)))
    for name in names:
        if command.candidates and name in view.nodes and view.nodes[name].parked:
            refusals.add([refusal("hypervisor_unreachable", f"other commands wait for {name}", node=name)])
            continue
        result = fit(view, name, member, now, work, orphaned(view, member, name))
        if isinstance(result, Placement):
            instance = claimed(view, command, member, name, result, now)
            return Decision("applied", name, instances=(instance,), assignment=result.assignment)
        if isinstance(result, Question):
            return result
        refusals.add(result)
        if work.exhausted:
            break
    reasons = refusals.all()
    if not command.candidates and unreachable(reasons):
        return Decision("parked", command.node, reasons)
    return Decision("rejected", command.node, reasons)


def _claim_group(view: View, command: Claim, members: Sequence[ClaimMember], now: datetime) -> Decision | Question:
    """Take all or none, wherever on its node each has to lie so that all find room."""
    results = place_members(view, members, now, Work(most=min(MOST_REASONS, _LISTED_IN_ALL // len(members))))
    if isinstance(results, Question):
        return results
    refusals = Collected()
    instances: list[Instance] = []
    for number, result in results.items():
        member = members[number]
        if isinstance(result, list):
            refusals.add([_about(member, why) for why in result])
        else:
            instances.append(claimed(view, command, member, member.node, result, now))
    if reasons := refusals.all():
        return Decision("rejected", command.node, reasons)
    assignments = tuple((i, i.holdings[0].node, i.holdings[0].placement.assignment) for i in instances)
    return Decision("applied", command.node, instances=tuple(instances), assignments=assignments)


def _about(member: ClaimMember, why: Reason) -> Reason:
    """The reason with the member of the claim that it is about."""
    return why.model_copy(update={"instance": member.instance})


def claimed(
    view: View, command: Claim, member: ClaimMember, node: str, placement: Placement, now: datetime
) -> Instance:
    """The instance as it is once the claim is applied."""
    lease = None if command.lease_seconds is None else now + timedelta(seconds=command.lease_seconds)
    holding = Holding(
        node=node,
        role="active",
        request=request_of(member),
        placement=placement,
        claimed_at=now,
        lease_expires_at=lease,
    )
    before = view.instances.get(member.instance)
    if before is None:
        return Instance(
            member.instance, project=command.project, user=command.user, revision=member.revision, holdings=(holding,)
        )
    return replace(
        before,
        project=command.project,
        user=command.user,
        revision=before.revision if member.revision is None else member.revision,
        state=None,
        task=None,
        stranded=None,
        holdings=(holding,),
    )


def _barred(view: View, member: ClaimMember) -> list[Reason]:
    """Why this instance cannot be claimed, whatever the node."""
    instance = view.instances.get(member.instance)
    if instance is None:
        return []
    if instance.deleted_at is not None:
        return [refusal("superseded", f"instance {instance.id} was deleted", node=member.node)]
    if instance.revision is not None and member.revision is not None and member.revision <= instance.revision:
        return [
            refusal(
                "stale", f"revision {member.revision} is not above the applied {instance.revision}", node=member.node
            )
        ]
    if instance.holdings and not _adoptable(instance, member.node):
        where = ", ".join(instance.nodes())
        return [
            refusal("instance_exists", f"instance {instance.id} already holds resources on {where}", node=member.node)
        ]
    return []


def _adoptable(instance: Instance, node: str) -> bool:
    """Whether all it holds is what an audit charged for its unclaimed domain on this very node."""
    return all(holding.role == "orphan" and holding.node == node for holding in instance.holdings)


def abort(view: View, command: Abort, _now: datetime) -> Decision:
    """A build failed: release everything, so that the instance may be claimed again.

    Where it is the new side of a move that failed, the move is undone as by a
    ``revert``: the instance goes on as it was. So does one that moves within
    the node.
    """
    instance = view.instances[command.instance]
    failed = view.nodes[command.node].failed_builds + 1 if command.node in view.nodes else 0
    if any(holding.role == "move_destination" for holding in instance.on(command.node)):
        after = instance.settled("move_source")
    else:
        after = replace(instance.released(), state=None, task=None)
    return Decision("applied", command.node, instances=(after,), failed_builds={command.node: failed})
