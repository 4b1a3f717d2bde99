"""Plain amounts: what a node may hand out of each.

``capacity = floor((total - reserved) * ratio)``, never below 0. Ratios have at
most six decimals, so that all arithmetic is on integers: a ratio is kept as
its numerator over :data:`MILLION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from schemas.policy import Overhead

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
