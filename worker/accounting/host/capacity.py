"""Plain amounts: what a node may hand out of each, and what one instance may ask.

``capacity = floor((total - reserved) * ratio)``, never below 0. Ratios have at
most six decimals, so that all arithmetic is on integers: a ratio is kept as
its numerator over :data:`MILLION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.accounting.reasons.refusals import Refusals, refusal
from worker.accounting.work import MOST_REASONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from schemas.outcomes import Reason
    from schemas.policy import Limit, Overhead
    from worker.accounting.state.occupancy import Occupancy

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much of one resource a node has, keeps for itself, and may hand out."""

    total: int
    reserved: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Surcharge:
    """Memory the hypervisor needs besides the guest's own; ``per_memory`` is in millionths of a percent."""

    fixed: int
    per_vcpu: int
    per_memory: int

    def memory_mib(self, vcpus: int, memory_mib: int) -> int:
        """Overhead of one instance in MiB, the percentage rounded up."""
        return self.fixed + self.per_vcpu * vcpus - (-memory_mib * self.per_memory // (100 * MILLION))


def millionths(ratio: Decimal) -> int:
    """A decimal of at most six places as a whole number of millionths."""
    return int(ratio * MILLION)


def grows(amount: int, counter: str, own: Mapping[str, int]) -> bool:
    """Whether ``amount`` is more than what is charged already, so that a limit may refuse it.

    Where nothing is charged yet, even 0 is a beginning: a node that is beyond
    a limit takes nobody new who is subject to it.
    """
    return not own or amount > own.get(counter, 0)


def capacity_of(total: int, reserved: int, ratio: Decimal) -> Capacity:
    """What may be handed out of ``total`` after ``reserved`` is kept back."""
    return Capacity(total, reserved, handed_out(total, reserved, millionths(ratio)))


def handed_out(total: int, reserved: int, ratio: int) -> int:
    """The capacity at a ratio in millionths."""
    return max(0, total - reserved) * ratio // MILLION


def surcharge_of(overhead: Overhead) -> Surcharge | None:
    """The policy's overhead, or None where there is none."""
    percent = millionths(overhead.memory_percent)
    if not (overhead.memory_mib or overhead.memory_mib_per_vcpu or percent):
        return None
    return Surcharge(overhead.memory_mib, overhead.memory_mib_per_vcpu, percent)


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
