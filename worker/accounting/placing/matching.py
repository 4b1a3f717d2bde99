"""Deciding several device requests together.

A quick pass serves one request after the other, as most can be. Where it fails
though there may be a way, devices are reassigned along augmenting paths, and
where two devices exclude each other, both choices are tried. So a refusal
means that there is no way, and an answer is already the assignment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.accounting.host.devices import Stock, bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.accounting.host.devices import Catalog, Demand, Want

Choice = list[dict[int, int]]
"""For each request, how many units it takes of which offer."""

Tiers = tuple[tuple[int, ...], ...]
"""Where one request may take from: steps that each allow more, each a sequence of masks to empty in order."""

MAX_BRANCHES: Final = 500
"""A bound on the work for one request: reached only by requests made to be hard, which are then refused."""


def choose(demand: Demand, tiers: Sequence[Tiers]) -> Choice | None:
    """Units for every request at once, or None if there is no way.

    Each request takes from the first of its tiers that has enough, if that can
    be together with the others, and never from outside the last.
    """
    if not demand.wants:
        return []
    return _in_turn(demand, tiers) or _together(demand, tiers)


def everywhere(demand: Demand) -> list[Tiers]:
    """The tiers of requests that may take from anywhere, beginning with what they hold."""
    everything = demand.catalog.everything
    return [((kept, everything & ~kept),) for kept in demand.kept]


def _in_turn(demand: Demand, tiers: Sequence[Tiers]) -> Choice | None:
    catalog, stock, wants, _ = demand
    choice: Choice = []
    for want, steps in zip(wants, tiers, strict=True):
        allowed = want.allowed & stock.free
        best = next((step for step in steps if stock.count(allowed & union(step)) >= want.units), ())
        taken: dict[int, int] = {}
        missing = want.units
        for mask in best:
            for number in bits(mask & allowed):
                if not missing:
                    break
                if stock.free >> number & 1:
                    taken[number] = min(missing, stock.units.get(number, 1))
                    missing -= taken[number]
                    stock = _beside(catalog, stock, number, taken[number])
        if missing:
            return None
        choice.append(taken)
    return choice


def _beside(catalog: Catalog, stock: Stock, number: int, amount: int) -> Stock:
    """What is left once ``amount`` units of an offer are taken."""
    free = stock.free & ~catalog.excludes[number]
    left = stock.units.get(number, 1) - amount
    if not left:
        return Stock(free & ~(1 << number), stock.units)
    return Stock(free, {**stock.units, number: left})


def union(masks: Iterable[int]) -> int:
    """All that is in any of the masks."""
    everything = 0
    for mask in masks:
        everything |= mask
    return everything


def _together(demand: Demand, tiers: Sequence[Tiers]) -> Choice | None:
    """Branch on offers that exclude each other, over a matching that ignores it.

    States that differ only in which of several alike devices are left are
    tried once.
    """
    catalog, stock, wants, _ = demand
    limits = [want.allowed & union(steps[-1]) for want, steps in zip(wants, tiers, strict=True)]
    forms = _Forms(catalog, stock, limits)
    seen: set[object] = set()
    pending = [stock.free]
    for _ in range(MAX_BRANCHES):
        if not pending:
            break
        now = Stock(pending.pop(), stock.units)
        choice = _matched(now, wants, tiers, limits)
        if choice is None:
            continue
        clash = _clash(catalog, choice)
        if clash is None:
            return choice
        for free in (now.free & ~(1 << clash), now.free & ~catalog.excludes[clash]):
            form = forms.of(free)
            if form not in seen:
                seen.add(form)
                pending.append(free)
    return None


def _clash(catalog: Catalog, choice: Choice) -> int | None:
    """An offer taken beside one that it excludes."""
    used = union(1 << number for taken in choice for number in taken)
    return next((number for number in bits(used) if catalog.excludes[number] & used), None)


class _Forms:
    """Tells states separated by what is left on alike devices, not by which of them it is left on."""

    def __init__(self, catalog: Catalog, stock: Stock, limits: Sequence[int]) -> None:
        self.catalog = catalog
        self.stock = stock
        self.limits = limits
        self.wanted = union(limits) & stock.free
        self.roots = [root for root in catalog.below.get(None, ()) if catalog.related[root] & self.wanted]
        self.known: dict[tuple[str, int], tuple[object, ...]] = {}

    def of(self, free: int) -> tuple[tuple[object, ...], ...]:
        """A form that is equal for states that differ only in the choice among alike devices."""
        return tuple(sorted(self._tree(root, free & self.wanted & self.catalog.related[root]) for root in self.roots))

    def _tree(self, address: str, free: int) -> tuple[object, ...]:
        """The form of a device and of all that lies below it."""
        form = self.known.get((address, free))
        if form is None:
            own = sorted(self._offer(number) for number in bits(self.catalog.on.get(address, 0) & free))
            below = sorted(self._tree(child, free) for child in self.catalog.below.get(address, ()))
            form = self.known[address, free] = (tuple(own), tuple(below))
        return form

    def _offer(self, number: int) -> tuple[object, ...]:
        whole = self.catalog.offers[number].mdev_type is None
        return whole, self.stock.units.get(number, 1), tuple(mask >> number & 1 for mask in self.limits)


def _matched(stock: Stock, wants: Sequence[Want], tiers: Sequence[Tiers], limits: Sequence[int]) -> Choice | None:
    """Units for every request, whatever excludes what."""
    matching = _Matching(stock, limits)
    for asker, want in enumerate(wants):
        missing = want.units
        for mask in (mask for step in tiers[asker] for mask in step):
            missing -= matching.fill(asker, mask, missing)
        for _ in range(missing):
            if not matching.augment(asker):
                return None
    return matching.taken


class _Matching:
    """Who takes how much of which offer, grown unit by unit along augmenting paths."""

    def __init__(self, stock: Stock, limits: Sequence[int]) -> None:
        self.stock = stock
        self.limits = [limit & stock.free for limit in limits]
        self.taken: Choice = [{} for _ in limits]
        self.holders: dict[int, dict[int, int]] = {}
        self.full = 0

    def fill(self, asker: int, mask: int, wanted: int) -> int:
        """Take what is not taken, up to ``wanted`` units out of ``mask``; return how much that was."""
        filled = 0
        for number in bits(self.limits[asker] & mask & ~self.full):
            if filled == wanted:
                break
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
