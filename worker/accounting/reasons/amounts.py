"""Why plain amounts are refused: what a node has too little of, and what its limits do not allow one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.host.capacity import grows
from worker.accounting.reasons.refusals import Refusals, refusal
from worker.accounting.work import MOST_REASONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.outcomes import Reason
    from schemas.policy import Limit
    from worker.accounting.host.capacity import Capacity
    from worker.accounting.state.occupancy import Occupancy


def shortages(
    capacity: Mapping[str, Capacity],
    occupancy: Occupancy,
    charge: Mapping[str, int],
    own: Mapping[str, int],
    most: int = MOST_REASONS,
) -> list[Reason]:
    """A reason for every resource of ``charge`` that is unknown here, would pass its capacity, or is more than all.

    What one instance holds is never more than the hardware has, whatever the
    ratio. What does not grow beyond ``own`` is never refused. ``occupancy`` is
    without ``own``; the numbers told are those before the command.
    """
    reasons = Refusals(most)
    for name, requested in charge.items():
        if not grows(requested, name, own):
            continue
        known = capacity.get(name)
        if known is None:
            if reasons.room("unknown_resource"):
                detail = f"the node has no {name}, and {requested} were requested"
                reasons.listed.append(refusal("unknown_resource", detail, resource=name, requested=requested))
            continue
        others, held, planned = occupancy.used.get(name, 0), own.get(name, 0), occupancy.planned.get(name, 0)
        in_use = others + held - planned
        short_by = max(others + requested - known.capacity, requested - known.total)
        if short_by > 0 and reasons.room("insufficient"):
            free = max(0, known.capacity - in_use)
            reasons.listed.append(
                refusal(
                    "insufficient",
                    f"{requested} {name} requested{_besides(held, planned)}, {free} of {known.capacity} free"
                    f"{_bound(requested, known)}: {short_by} too few",
                    resource=name,
                    requested=requested,
                    used=in_use,
                    capacity=known.capacity,
                    short_by=short_by,
                )
            )
    return reasons.all()


def _besides(held: int, planned: int) -> str:
    return (f", {held} held" if held else "") + (f", {planned} asked for by others of this claim" if planned else "")


def _bound(requested: int, known: Capacity) -> str:
    return f", and no instance may have more than the {known.total} there are" if requested > known.total else ""


def limit_breaches(
    limits: Mapping[str, Limit],
    asked: Mapping[str, int],
    charge: Mapping[str, int],
    own: Mapping[str, int],
    most: int = MOST_REASONS,
) -> list[Reason]:
    """A reason for every amount that the policy's limits do not allow one instance.

    ``asked`` is without overhead: limits bound what a producer may ask, and it
    does not know the overhead. What stays as it was is never refused, nor is
    what shrinks refused for being above the maximum still.
    """
    reasons = Refusals(most)
    for name, limit in limits.items():
        amount = asked.get(name, 0)
        before = own.get(name, 0)
        now = charge.get(name, 0)
        if not amount or now == before:
            continue
        if amount < limit.min and reasons.room("below_minimum"):
            detail = f"{amount} {name} requested, at least {limit.min} must be"
            reasons.listed.append(refusal("below_minimum", detail, resource=name, requested=amount))
        if limit.max is not None and amount > limit.max and now > before and reasons.room("above_maximum"):
            detail = f"{amount} {name} requested, at most {limit.max} may be"
            reasons.listed.append(
                refusal("above_maximum", detail, resource=name, requested=amount, short_by=amount - limit.max)
            )
        if amount % limit.step and reasons.room("not_a_multiple"):
            detail = f"{amount} {name} requested, which is not a multiple of {limit.step}"
            reasons.listed.append(refusal("not_a_multiple", detail, resource=name, requested=amount))
    return reasons.all()
