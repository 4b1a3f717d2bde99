"""The life of an instance after its claim: reports of its state, its deletion, and leases that run out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from schemas.commands import InstanceCommand
from worker.accounting.decision import Decision, reason
from worker.accounting.instances import RELEASING_STATES, Instance
from worker.accounting.view import Question

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from schemas import Delete, Reason, Update
    from worker.accounting.view import View


class Expire(InstanceCommand):
    """A lease ran out. Made by the workers themselves; never accepted from a queue."""

    kind: Literal["expire"] = "expire"


def update(view: View, command: Update, _now: datetime) -> Decision:
    """Report an instance's state. A state that gives its resources back releases them; any report confirms a lease."""
    before = view.instances[command.instance]
    after = replace(
        before.without_lease(command.node),
        state=command.state or before.state,
        task=command.task,
        os_type=command.os_type or before.os_type,
    )
    if command.state in RELEASING_STATES and command.task != "spawning":
        after = after.released()
    built = {command.node: 0} if command.state == "active" and command.node in view.nodes else None
    return Decision("applied", command.node, instances=(after,), failed_builds=built)


def delete(view: View, command: Delete, now: datetime) -> Decision | Question:
    """Release everything an instance holds, on every node, and leave a tombstone.

    With verification, not before every hypervisor concerned says that the
    instance's domain does not run: one that does not answer proves nothing.
    """
    instance = view.instances.get(command.instance, Instance(command.instance))
    asked = {(name, instance.id) for name in instance.nodes() if _verified(view, command, name)}
    if unanswered := asked - view.facts.domains.keys():
        return Question(domains=frozenset(unanswered))
    waits = list(_still_there(view, asked, instance.id))
    if waits:
        blocking = any(why.code == "hypervisor_unreachable" and why.node == command.node for why in waits)
        return Decision("parked", command.node, tuple(waits), blocking=blocking)
    gone = replace(instance.released(), stranded=None, deleted_at=instance.deleted_at or now)
    return Decision("applied", command.node, instances=(gone,))


def _verified(view: View, command: Delete, name: str) -> bool:
    """Whether the node's hypervisor is to be asked first."""
    node = view.nodes.get(name)
    if node is None or node.hypervisor is None:
        return False
    return node.policy.verify_deletes if command.verify is None else command.verify


def _still_there(view: View, asked: Iterable[tuple[str, UUID]], instance: UUID) -> Iterable[Reason]:
    for name, _ in sorted(asked):
        state = view.facts.domains[name, instance]
        if state is None:
            yield reason("hypervisor_unreachable", f"the hypervisor of {name} does not answer", node=name)
        elif state == "running":
            yield reason("domain_still_running", f"the domain of {instance} still runs on {name}", node=name)


def expire(view: View, command: Expire, now: datetime) -> Decision | Question:
    """End a lease that was not confirmed in time: a claim is released, a prepared move undone.

    A domain that exists confirms a claim. A hypervisor that does not answer
    leaves the lease running: what is unknown is not absent.
    """
    instance = view.instances[command.instance]
    due = [h for h in instance.holdings if h.lease_expires_at is not None and h.lease_expires_at <= now]
    if not due:
        return Decision("applied", command.node)
    if any(holding.role == "move_destination" for holding in due):
        return Decision("applied", command.node, instances=(instance.settled("move_source"),))
    node = view.nodes.get(due[0].node)
    if node is not None and node.hypervisor is not None:
        key = (node.name, instance.id)
        if key not in view.facts.domains:
            return Question(domains=frozenset({key}))
        state = view.facts.domains[key]
        if state is None:
            return Decision("parked", command.node, (reason("hypervisor_unreachable", "", node=node.name),))
        if state != "absent":
            return Decision("applied", command.node, instances=(instance.without_lease(node.name),))
    return Decision("applied", command.node, instances=(instance.released(),))
