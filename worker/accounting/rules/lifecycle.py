"""The life of an instance after its claim: reports of its state, its deletion, and leases that run out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from schemas.commands import InstanceCommand
from worker.accounting.reasons.refusals import refusal
from worker.accounting.rules.decision import Decision
from worker.accounting.state.instances import RELEASING_STATES, Instance
from worker.accounting.state.view import Question

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from schemas import Delete, Reason, Update
    from worker.accounting.state.instances import Holding
    from worker.accounting.state.occupancy import Role
    from worker.accounting.state.view import View


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
    gone = replace(instance.released(), holdings=(), deleted_at=instance.deleted_at or now)
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
            yield refusal("hypervisor_unreachable", f"the hypervisor of {name} does not answer", node=name)
        elif state == "running":
            yield refusal("domain_still_running", f"the domain of {instance} still runs on {name}", node=name)


def expire(view: View, command: Expire, now: datetime) -> Decision | Question:
    """End leases that were not confirmed in time: a claim is released, a prepared move undone.

    A domain confirms: any of the instance's a claim, one on the new node a move.
    A hypervisor that does not answer leaves the lease running: what is unknown
    is not absent. A claim's own lease waits for the end of an open move, which
    holds both sides until somebody ends it. Where nothing has run out (any
    more), nothing is to be said.
    """
    instance = view.instances.get(command.instance)
    if instance is None or not any(_ran_out(h, now) for h in instance.holdings if h.role != "move_source"):
        return Decision("parked", command.node)
    asked = [(holding, (holding.node, instance.id)) for holding in instance.claims if _tells(view, instance, holding)]
    if unanswered := {key for _, key in asked} - view.facts.domains.keys():
        return Question(domains=frozenset(unanswered))
    states = [(holding, view.facts.domains[key]) for holding, key in asked]
    if any(state is None for _, state in states):
        return Decision("parked", command.node, (refusal("hypervisor_unreachable", "", node=command.node),))
    seen = {holding.role for holding, state in states if state != "absent"}
    after = instance
    if instance.moving:
        confirmed = "move_destination" in seen
        after = _confirmed(after, "move_destination") if confirmed else after.settled("move_source")
    if any(_ran_out(holding, now) for holding in after.holdings):
        after = _confirmed(after, "active", "move_source") if seen else after.released()
    return Decision("applied", command.node, instances=(after,))


def _ran_out(holding: Holding, now: datetime) -> bool:
    return holding.lease_expires_at is not None and holding.lease_expires_at <= now


def _tells(view: View, instance: Instance, holding: Holding) -> bool:
    """Whether a domain on this side's node would prove that the side is in use.

    Of a move within a node it proves the old side alone.
    """
    node = view.nodes.get(holding.node)
    if node is None or node.hypervisor is None:
        return False
    return holding.role != "move_destination" or len(instance.on(holding.node)) == 1


def _confirmed(instance: Instance, *roles: Role) -> Instance:
    """With no lease running on what it holds in these roles."""
    held = (replace(h, lease_expires_at=None) if h.role in roles else h for h in instance.holdings)
    return replace(instance, holdings=tuple(held))
