"""A look at a node without being asked: an audit that the workers make themselves, and that answers nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, cast

from schemas.commands import CommandBase
from worker.accounting.rules.audits import audit
from worker.accounting.rules.decision import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from worker.accounting.state.instances import Holding
    from worker.accounting.state.view import Question, View

START: Final = timedelta(seconds=20)
"""A guest that was just claimed has no domain yet, as a rule for less than this: nothing is missing."""

_BUILD: Final = timedelta(minutes=15)
"""One that is reported to be built may take longer, for its image; not forever, since builds are lost too."""


class Look(CommandBase):
    """Compare a node with its hypervisor. Made by the workers themselves; never accepted from a queue."""

    kind: Literal["look"] = "look"
    repair: Literal[False] = False


def look(view: View, command: Look, now: datetime) -> Decision | Question:
    """Compare a node with what its hypervisor was found to have.

    What was listed ahead holds while nothing has changed on the node since
    before the listing: then it is as if it had been asked in the node's order.
    Else the hypervisor is asked in that order. A node that is gone, has no
    hypervisor or does not answer is not compared; nor is one with commands that
    wait, since what they will change has happened there already.
    """
    node = view.nodes.get(command.node)
    if node is None or node.hypervisor is None or node.parked:
        return Decision("applied", command.node)
    sight = view.facts.sights.get(node.name)
    if sight is not None and sight.listing is None:
        return Decision("applied", command.node)
    if sight is not None and (sight.generation, sight.address) == (node.generation, node.hypervisor):
        view = replace(view, facts=replace(view.facts, listings={node.name: sight.listing}))
    decision = audit(view, command, now)
    if not isinstance(decision, Decision) or not decision.drift:
        return decision
    told: list[Mapping[str, object]] = []
    starting: list[Mapping[str, object]] = []
    for one in decision.drift:
        (starting if _starts(view, command.node, one, now) else told).append(one)
    return replace(
        decision,
        drift=tuple(told),
        passed_over=frozenset((str(one["kind"]), cast("UUID", one["instance"])) for one in starting),
        look_again=any(_age(view, one, now) < START for one in starting),
    )


def _starts(view: View, node: str, drift: Mapping[str, object], now: datetime) -> bool:
    """Whether what is told as missing was claimed just now, or for a time that still runs, or is being built."""
    held = _held(view, drift) if drift["kind"] == "ghost" else None
    if held is None or held.node != node:
        return False
    leased = held.lease_expires_at is not None and held.lease_expires_at > now
    building = view.instances[cast("UUID", drift["instance"])].state == "building"
    return leased or now - held.claimed_at < (_BUILD if building else START)


def _age(view: View, drift: Mapping[str, object], now: datetime) -> timedelta:
    held = _held(view, drift)
    return timedelta.max if held is None else now - held.claimed_at


def _held(view: View, drift: Mapping[str, object]) -> Holding | None:
    """What the instance holds that a difference is about."""
    holder = view.instances.get(cast("UUID", drift["instance"]))
    return None if holder is None else holder.with_role("active")
