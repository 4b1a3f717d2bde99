"""The devices that one instance's requests could take, sorted by what can be told apart.

Offers of one *kind* lie on one cell and are accepted by the same requests, so
that only their number matters. Blocks (:mod:`worker.accounting.host.modes`) that
offer the same choices are alike in the same way. None of this depends on where
the instance comes to lie, so it is made out once for a decision.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from worker.accounting.host.modes import union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.accounting.host.devices import Catalog, Stock
    from worker.accounting.host.modes import Block
    from worker.accounting.work import Work

Amounts = tuple[tuple[int, int], ...]
"""Units of each kind, by number of the kind; those that are 0 are left out."""


class Option(NamedTuple):
    """One way to use a block: how many units of each kind it offers then, and by which offers."""

    amounts: Amounts
    offers: int


class Assortment:
    """What is left on a host, for requests that accept the offers in each of the masks ``accepted``."""

    def __init__(self, catalog: Catalog, stock: Stock, accepted: Sequence[int], work: Work) -> None:
        self.catalog = catalog
        self.stock = stock
        self.work = work
        self._accepted = accepted
        self.verdicts: dict[object, tuple[tuple[int, ...], ...] | None] = {}
        """What was found out about problems that differ in nothing that matters."""
        self.contests: dict[tuple[int, ...], Any] = {}
        """What is offered to requests, by what each of them reaches."""
        self._reach: dict[int, int] = {}

    @cached_property
    def accepted(self) -> Sequence[int]:
        """The masks that differ."""
        return list(dict.fromkeys(self._accepted))

    @cached_property
    def wanted(self) -> int:
        """The mask of all that is left and accepted by any."""
        return union(self.accepted) & self.stock.free

    @cached_property
    def kinds(self) -> Sequence[int]:
        """The masks of the kinds."""
        kinds = [here for mask in self.catalog.by_cell.values() if (here := mask & self.wanted)]
        for accepted in self.accepted:
            self.work.spend(1 + len(kinds) // 4)
            kinds = [part for kind in kinds for part in (kind & accepted, kind & ~accepted) if part]
        return kinds

    @cached_property
    def loose(self) -> Amounts:
        """What excludes nothing that is wanted."""
        return self._amounts(self.catalog.apart.offers & self.wanted)

    @cached_property
    def groups(self) -> Mapping[tuple[Amounts, ...], Sequence[Sequence[int]]]:
        """For each set of options, the blocks that have them: the offers behind each option."""
        groups: dict[tuple[Amounts, ...], list[list[int]]] = {}
        self.work.spend(len(self.catalog.apart.parts) // 8)
        for block in self.catalog.apart.parts:
            if block.offers & self.wanted:
                options = self._options(block)
                groups.setdefault(tuple(o.amounts for o in options), []).append([o.offers for o in options])
        return groups

    def reach(self, limit: int) -> int:
        """The mask of kinds, by number, that lie in a mask of offers."""
        known = self._reach.get(limit)
        if known is None:
            self.work.spend(1 + len(self.kinds) // 8)
            known = sum(1 << number for number, kind in enumerate(self.kinds) if kind & limit)
            self._reach[limit] = known
        return known

    def alike(self, cell: int) -> object:
        """A key that is equal for cells with the same devices on them, whoever may take those."""
        return self._by_cell.get(cell)

    @cached_property
    def _by_cell(self) -> Mapping[int | None, object]:
        """What lies on each cell, in terms that are the same for every cell."""
        names, cells = self._names()
        found: dict[int | None, list[object]] = {}
        for kind, units in self.loose:
            found.setdefault(cells[kind], []).append((-1, units, names[kind]))
        spread = set()
        for group, members in self.groups.items():
            self.work.spend(len(group))
            where = {cells[kind] for amounts in group for kind, _ in amounts}
            if len(where) > 1:
                spread |= where
            for cell in where:
                shape = tuple(tuple(sorted((names[kind], units) for kind, units in amounts)) for amounts in group)
                found.setdefault(cell, []).append((len(members), shape))
        return {cell: cell if cell in spread else tuple(sorted(content, key=repr)) for cell, content in found.items()}

    def _names(self) -> tuple[list[int], list[int | None]]:
        """For each kind, who accepts it, and its cell."""
        names, cells = [], []
        self.work.spend(len(self.kinds) * (len(self.accepted) + 8) // 8)
        for kind in self.kinds:
            low = kind & -kind
            names.append(sum(1 << number for number, accepted in enumerate(self.accepted) if accepted & low))
            cells.append(self.catalog.offers[low.bit_length() - 1].device.cell)
        return names, cells

    def _amounts(self, offers: int) -> Amounts:
        self.work.spend(1 + len(self.kinds) // 8)
        return tuple(
            (number, self.stock.count(here)) for number, kind in enumerate(self.kinds) if (here := kind & offers)
        )

    def _options(self, block: Block) -> list[Option]:
        """The ways to use a block of which none offers less than another in everything."""
        found: list[Option] = []
        for mode in block.modes:
            if not mode.offers & self.wanted and not any(part.offers & self.wanted for part in mode.parts):
                continue
            own = mode.offers & self.wanted
            ways = [Option(self._amounts(own), own)]
            for part in mode.parts:
                if part.offers & self.wanted:
                    options = self._options(part)
                    self.work.spend(len(ways) * len(options))
                    ways = self._best([_both(way, option) for way in ways for option in options])
            found += ways
        return self._best(found)

    def _best(self, options: list[Option]) -> list[Option]:
        if len(options) == 1:
            return options
        alike: dict[Amounts, Option] = {}
        for option in options:
            alike.setdefault(option.amounts, option)
        self.work.spend(len(alike) * len(alike) // 2)
        sizes = [(option, dict(option.amounts)) for option in alike.values()]
        return [
            option
            for option, size in sizes
            if not any(other is not size and offers_no_less(other, size) for _, other in sizes)
        ]


def offers_no_less(one: Mapping[int, int], other: Mapping[int, int]) -> bool:
    """Whether there is as much in ``one`` of everything that there is in ``other``."""
    return one.keys() >= other.keys() and all(one[kind] >= units for kind, units in other.items())


def _both(one: Option, other: Option) -> Option:
    amounts = dict(one.amounts)
    for kind, units in other.amounts:
        amounts[kind] = amounts.get(kind, 0) + units
    return Option(tuple(sorted(amounts.items())), one.offers | other.offers)
