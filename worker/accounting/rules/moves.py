"""Moves: a new size or another node, prepared on both sides, then confirmed or reverted.

While a move is open the instance has two holdings, ``move_source`` and
``move_destination``. Confirming or reverting keeps one of them. On one node the
two are charged together as the larger of both (:func:`worker.accounting.state.occupancy.merged`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from schemas import Resize
from worker.accounting.rules.decision import Decision, refuse, rejected
from worker.accounting.rules.fit import fit, unreachable
from worker.accounting.state.instances import Holding, request_of, shape_of
from worker.accounting.state.view import Question
from worker.accounting.work import Work

if TYPE_CHECKING:
    from datetime import datetime

    from schemas import Confirm, Migrate, Revert, Shape
    from worker.accounting.state.instances import Instance
    from worker.accounting.state.occupancy import Placement
    from worker.accounting.state.view import View


def resize(view: View, command: Resize, now: datetime) -> Decision | Question:
    """A new size, on the same node or on another."""
    instance = view.instances[command.instance]
    held = instance.with_role("active")
    if instance.moving or held is None:
        return _open_move(instance, command.node)
    return _prepare(view, command, instance, command.destination or command.node, command, now)


def migrate(view: View, command: Migrate, now: datetime) -> Decision | Question:
    """The same size on another node. An evacuation needs nothing of the node it leaves, not even that it exists."""
    instance = view.instances[command.instance]
    held = instance.with_role("active")
    if instance.moving or (held is None and instance.stranded is None):
        return _open_move(instance, command.node)
    request = held.request if held is not None else instance.stranded or ""
    changes = {name: getattr(command, name) for name in ("topology", "devices", "traits")}
    shape = shape_of(request).model_copy(update={k: v for k, v in changes.items() if v is not None})
    return _prepare(view, command, instance, command.destination, shape, now)


def _prepare(
    view: View, command: Resize | Migrate, instance: Instance, destination: str, shape: Shape, now: datetime
) -> Decision | Question:
    result = fit(view, destination, shape, now, Work(), instance.on(destination))
    if isinstance(result, Question):
        return result
    if isinstance(result, list):
        if unreachable(result) and destination == command.node:
            return Decision("parked", command.node, tuple(result))
        return rejected(command.node, result)
    immediate = isinstance(command, Resize) and command.mode == "immediate"
    moved = (
        _resized(instance, shape, result) if immediate else _both(instance, command, destination, shape, result, now)
    )
    return Decision("applied", command.node, instances=(moved,), assignment=result.assignment)


def _resized(instance: Instance, shape: Shape, placement: Placement) -> Instance:
    """The instance in its new size at once."""
    held = instance.claims[0]
    resized = replace(held, request=request_of(shape), placement=placement)
    return replace(instance, holdings=(resized, *instance.orphans()))


def _both(
    instance: Instance,
    command: Resize | Migrate,
    destination: str,
    shape: Shape,
    placement: Placement,
    now: datetime,
) -> Instance:
    """The instance with both sides of its move held; what was charged for a stray domain of its there is taken over."""
    lease = None if command.lease_seconds is None else now + timedelta(seconds=command.lease_seconds)
    new = Holding(
        node=destination,
        role="move_destination",
        request=request_of(shape),
        placement=placement,
        claimed_at=now,
        lease_expires_at=lease,
    )
    old = tuple(replace(holding, role="move_source") for holding in instance.claims)
    kind = command.kind if isinstance(command, Resize) else command.reason
    return replace(instance, holdings=(*old, new, *instance.orphans(but_on=destination)), move=kind)


def _open_move(instance: Instance, node: str) -> Decision:
    if instance.moving:
        detail = f"a move of instance {instance.id} is open ({instance.move}); confirm or revert it first"
        return refuse(node, "move_in_progress", detail)
    return refuse(node, "instance_unknown", f"instance {instance.id} holds nothing")


def confirm(view: View, command: Confirm, _now: datetime) -> Decision:
    """The move is final: the old side is released. Without a move, a running lease is confirmed."""
    instance = view.instances[command.instance]
    if instance.moving:
        return Decision("applied", command.node, instances=(instance.settled("move_destination"),))
    if any(holding.lease_expires_at is not None for holding in instance.holdings):
        return Decision("applied", command.node, instances=(instance.without_lease(command.node),))
    return refuse(command.node, "no_move", f"no move of instance {instance.id} is open")


def revert(view: View, command: Revert, _now: datetime) -> Decision:
    """The move is undone: the new side is released."""
    instance = view.instances[command.instance]
    if not instance.moving:
        return refuse(command.node, "no_move", f"no move of instance {instance.id} is open")
    return Decision("applied", command.node, instances=(instance.settled("move_source"),))
