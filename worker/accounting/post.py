"""Posting a decision: the only place where what a node is charged changes.

A decision says how instances are afterwards. What a node is charged changes by
the difference between before and after, so that everything taken is given back
exactly, whatever happened in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from schemas.commands import InstanceCommand
from schemas.errors import NodeledgerError
from worker.accounting.rules.nodes import apply_settings, forget_host
from worker.accounting.rules.renaming import leave_name
from worker.accounting.state.occupancy import merged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from schemas import Command
    from worker.accounting.rules.decision import Decision
    from worker.accounting.rules.lifecycle import Expire
    from worker.accounting.rules.looks import Look
    from worker.accounting.state.instances import Instance
    from worker.accounting.state.occupancy import Counters, Occupancy, Placement
    from worker.accounting.state.view import View

_Key = TypeVar("_Key", int, str)


class BrokenInvariantError(NodeledgerError):
    """A decision would leave the view in a state that cannot be. It is a bug; the view is not to be used any more."""


class DoubleUseError(BrokenInvariantError):
    """A CPU or a device was about to be given twice."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of the ledger: how one instance changed what one node is charged.

    ``pins`` and ``devices`` are those the instance holds on the node afterwards.
    """

    node: str
    instance: Instance
    deltas: Counters
    used_after: Counters
    pins: frozenset[int]
    devices: frozenset[str]


def post(view: View, command: Command | Expire | Look, decision: Decision) -> list[Posting]:
    """Make a decision the view's state; returns what changed, in order.

    Raises:
        DoubleUseError: the decision would give a CPU or device twice.
        BrokenInvariantError: it would release what is not held, or more than is used.
    """
    postings: list[Posting] = []
    touched: set[str] = set()
    if decision.settings is not None:
        apply_settings(view, decision.settings, decision.renamed)
        touched.add(decision.node)
    for after in decision.instances:
        before = view.instances.get(after.id)
        stored = _stamped(command, before, after)
        view.instances[after.id] = stored
        for name in dict.fromkeys([*(before.nodes() if before else ()), *after.nodes()]):
            for holder, later in _steps(before, stored):
                posting = _charge(view, name, holder, later)
                if posting is not None:
                    postings.append(posting)
                    touched.add(name)
    for name, count in (decision.failed_builds or {}).items():
        if name in view.nodes and view.nodes[name].failed_builds != count:
            view.nodes[name].failed_builds = count
            touched.add(name)
    for name in touched:
        view.nodes[name].generation += 1
    _leave(view, decision)
    return postings


def _leave(view: View, decision: Decision) -> None:
    """Take a node that is removed out of the view, and one that is renamed from under its old name."""
    if decision.renamed is not None:
        left = leave_name(view, decision.renamed, decision.node).occupancy
        if left.used or left.pinned or left.held:
            raise BrokenInvariantError(f"{decision.renamed} was about to be renamed without all that is held on it")
    if decision.removed is not None:
        gone = view.nodes.pop(decision.removed)
        view.removed.append(gone)
        view.waiting[gone.name] = gone.parked
        forget_host(view, decision.removed)


def _stamped(command: Command | Expire | Look, before: Instance | None, after: Instance) -> Instance:
    """The new version of an instance, with the highest revision of the commands applied to it."""
    revision = after.revision
    if isinstance(command, InstanceCommand) and command.revision is not None:
        revision = command.revision if revision is None else max(revision, command.revision)
    return replace(after, version=(before.version if before else 0) + 1, revision=revision)


def _steps(before: Instance | None, after: Instance) -> tuple[tuple[Instance | None, Instance], ...]:
    """The changes to post for one: where it goes over to another project, it is released and charged anew."""
    if before is None or not before.holdings or (before.project, before.user) == (after.project, after.user):
        return ((before, after),)
    gone = replace(before, holdings=())
    return ((before, gone), (gone, after))


def _charge(view: View, name: str, before: Instance | None, after: Instance) -> Posting | None:
    old = before.placements_on(name) if before is not None else []
    new = after.placements_on(name)
    if old == new:
        return None
    occupancy = view.nodes[name].occupancy
    pins, devices = _all_pins(new), _all_devices(new)
    moved = _mark(occupancy.pinned, after.id, _all_pins(old), pins)
    moved |= _mark(occupancy.held, after.id, _all_devices(old), devices)
    deltas = _shift(occupancy, old, new)
    if not deltas and not moved:
        return None
    used = occupancy.used
    return Posting(
        node=name,
        instance=after,
        deltas=deltas,
        used_after={counter: used.get(counter, 0) for counter in deltas},
        pins=pins,
        devices=devices,
    )


def _shift(occupancy: Occupancy, old: Sequence[Placement], new: Sequence[Placement]) -> Counters:
    """Charge the difference; counters that fall to nothing are dropped."""
    was, will = merged(old), merged(new)
    used = occupancy.used
    deltas: Counters = {}
    for counter in was.keys() | will.keys() if was else will:
        delta = will.get(counter, 0) - was.get(counter, 0)
        if delta:
            deltas[counter] = delta
            left = used.pop(counter, 0) + delta
            if left < 0:
                raise BrokenInvariantError(f"{counter} was about to be used {left} times: more is released than taken")
            if left:
                used[counter] = left
    return deltas


def _mark(holders: dict[_Key, UUID], holder: UUID, old: frozenset[_Key], new: frozenset[_Key]) -> bool:
    """Note what an instance holds alone now; says whether that changed."""
    if old == new:
        return False
    for key in new - old:
        if key in holders:
            raise DoubleUseError(f"{key} is held by {holders[key]} and was about to be given to {holder}")
    for key in old - new:
        if holders.pop(key, None) != holder:
            raise BrokenInvariantError(f"{key} was about to be given back by {holder}, which does not hold it")
    for key in new - old:
        holders[key] = holder
    return True


def _all_pins(placements: Sequence[Placement]) -> frozenset[int]:
    if len(placements) == 1:
        return placements[0].pins
    return frozenset[int]().union(*(placement.pins for placement in placements))


def _all_devices(placements: Sequence[Placement]) -> frozenset[str]:
    return frozenset(address for placement in placements for address in placement.devices)
