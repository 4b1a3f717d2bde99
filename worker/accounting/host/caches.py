"""Last-level caches: packing a guest's dedicated vCPUs into as few of them as can be.

Caches are bit masks of CPUs, apart from each other. Cores do not reach over
them, so that what one offers does not depend on which others are used: taking
those that offer most gives the fewest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Caches(NamedTuple):
    """The caches of a host cell, and in how many of them CPUs must lie; None: in as few as can be.

    CPUs whose cache is not known count as one cache more, and cannot be used under a bound.
    """

    masks: tuple[int, ...]
    most: int | None

    def hold(self, cpus: int) -> bool:
        """Whether CPUs lie within the bound."""
        return self.most is None or (not cpus & ~sum(self.masks) and self._touched(cpus) <= self.most)

    def nearest(self, cores_left: Sequence[int], wanted: int, threads: int | None, begun: int = 0) -> Sequence[int]:
        """What is left of the cores in the fewest caches that offer ``wanted`` CPUs; nothing where the bound is met.

        ``threads`` is how many CPUs of a core are used, None for all that are left. Caches that the CPUs ``begun``
        lie in come first. The last one taken is that which offers least, so that those with much left stay whole.
        """
        masks = self.masks if self.most is not None else (*self.masks, ~sum(self.masks))
        offers = [(_offered(counts, threads), mask) for mask, counts in _parts(masks, cores_left)]
        chosen = sum(mask for _, mask in offers if mask & begun)
        missing = wanted - sum(amount for amount, mask in offers if mask & begun)
        others = sorted((offer for offer in offers if not offer[1] & begun), key=_amount)
        room = len(others) if self.most is None else self.most - self._touched(begun)
        while missing > 0:
            enough = [offer for offer in others if offer[0] >= missing]
            if not others or room <= 0:
                return ()
            taken = enough[0] if enough else max(others, key=_amount)
            others.remove(taken)
            chosen, missing, room = chosen | taken[1], missing - taken[0], room - 1
        return [left & chosen for left in cores_left if left & chosen]

    def _touched(self, cpus: int) -> int:
        return sum(1 for mask in self.masks if mask & cpus)


def reach(masks: Iterable[int], cores_left: Sequence[int], fewest: int) -> list[int]:
    """How many CPUs could be had in one cache, in two, and so on, of those whose caches are known.

    ``fewest`` is how many threads of each core must be used at least; with 1 a core may be used in part.
    """
    parts = list(_parts(masks, cores_left))
    levels: list[int | None] = [None]
    if fewest > 1:
        levels = list(range(fewest, 1 + max((count for _, counts in parts for count in counts), default=0)))
    sums = [_sums(sorted((_offered(counts, threads) for _, counts in parts), reverse=True)) for threads in levels]
    return [max(together) for together in zip(*sums, strict=True)] or [0] * len(parts)


def _parts(masks: Iterable[int], cores_left: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
    """For each cache how many CPUs are left of each of its cores."""
    return ((mask, [part.bit_count() for left in cores_left if (part := left & mask)]) for mask in masks)


def _offered(counts: Sequence[int], threads: int | None) -> int:
    return sum(counts) if threads is None else threads * sum(1 for count in counts if count >= threads)


def _sums(amounts: Iterable[int]) -> list[int]:
    total, sums = 0, []
    for amount in amounts:
        total += amount
        sums.append(total)
    return sums


def _amount(offer: tuple[int, int]) -> int:
    return offer[0]
