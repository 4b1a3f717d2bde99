"""Units of offers for several askers at once, whatever excludes what: a matching, found along augmenting paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.host.modes import bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.accounting.host.devices import Stock
    from worker.accounting.work import Work

Choice = list[dict[int, int]]
"""For each asker, how many units it takes of which offer."""


class Matching:
    """Who takes how much of which offer, grown unit by unit along augmenting paths."""

    def __init__(self, stock: Stock, limits: Sequence[int], work: Work) -> None:
        self.stock = stock
        self.work = work
        self.limits = [limit & stock.free for limit in limits]
        self.taken: Choice = [{} for _ in limits]
        self.holders: dict[int, dict[int, int]] = {}
        self.full = 0

    def serve(self, asker: int, units: int, masks: Iterable[int] = (-1,)) -> bool:
        """Take so many units, out of the ``masks`` in their order, then whatever others can do without."""
        for mask in masks:
            units -= self.fill(asker, mask, units)
        return all(self.augment(asker) for _ in range(units))

    def fill(self, asker: int, mask: int, wanted: int) -> int:
        """Take what is not taken, up to ``wanted`` units out of ``mask``; return how much that was."""
        filled = 0
        for number in bits(self.limits[asker] & mask & ~self.full):
            if filled == wanted:
                break
            self.work.spend(1)
            amount = min(wanted - filled, self._left(number))
            self._move(asker, number, amount)
            filled += amount
        return filled

    def augment(self, asker: int) -> bool:
        """Get one more unit for ``asker``, others giving way to other offers."""
        seen = 0
        came: dict[int, tuple[int, int]] = {asker: (-1, -1)}
        for current in (queue := [asker]):
            fresh = self.limits[current] & ~seen
            self.work.spend(1 + fresh.bit_count() // 4)
            seen |= fresh
            if spare := fresh & ~self.full:
                self._shift(current, (spare & -spare).bit_length() - 1, came)
                return True
            for number in bits(fresh):
                for holder in sorted(self.holders[number].keys() - came.keys()):
                    came[holder] = (current, number)
                    queue.append(holder)
        return False

    def _shift(self, current: int, number: int, came: dict[int, tuple[int, int]]) -> None:
        while True:
            self._move(current, number, 1)
            before, number = came[current]
            if before < 0:
                return
            self._move(current, number, -1)
            current = before

    def _move(self, asker: int, number: int, amount: int) -> None:
        holders = self.holders.setdefault(number, {})
        for amounts, key in ((self.taken[asker], number), (holders, asker)):
            amounts[key] = amounts.get(key, 0) + amount
            if not amounts[key]:
                del amounts[key]
        if self._left(number):
            self.full &= ~(1 << number)
        else:
            self.full |= 1 << number

    def _left(self, number: int) -> int:
        return self.stock.units.get(number, 1) - sum(self.holders.get(number, {}).values())
