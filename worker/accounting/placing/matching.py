"""Deciding several device requests together.

A quick pass serves one request after the other, as most can be. Where it fails
though there may be a way, it is made out which of the devices that exclude each
other are to be used (:mod:`worker.accounting.placing.selection`), and those are divided
along augmenting paths. So a refusal means that there is no way, and an answer
is already the assignment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.host.devices import Stock
from worker.accounting.host.modes import bits, union
from worker.accounting.placing.flow import Choice, Matching
from worker.accounting.placing.selection import Asked, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounting.host.devices import Catalog
    from worker.accounting.placing.demand import Demand

Tiers = tuple[tuple[int, ...], ...]
"""Where one request may take from: steps that each allow more, each a sequence of masks to empty in order."""


def choose(demand: Demand, tiers: Sequence[Tiers]) -> Choice | None:
    """Units for every request at once, or None if there is no way.

    Each request takes from the first of its tiers that has enough, if that can
    be together with the others, and never from outside the last.

    Raises:
        TooComplexError: finding out takes more work than is left.
    """
    if not demand.wants:
        return []
    return _in_turn(demand, tiers) or _together(demand, tiers)


def possible(demand: Demand, tiers: Sequence[Tiers]) -> bool:
    """Whether :func:`choose` would find a way: quicker where there is none.

    Raises:
        TooComplexError: finding out takes more work than is left.
    """
    return _selected(demand, tiers) is not None


def everywhere(demand: Demand) -> list[Tiers]:
    """The tiers of requests that may take from anywhere, beginning with what they hold."""
    everything = demand.catalog.everything
    return [((kept, everything & ~kept),) for kept in demand.kept]


def _in_turn(demand: Demand, tiers: Sequence[Tiers]) -> Choice | None:
    catalog, stock, wants = demand.catalog, demand.stock, demand.wants
    choice: Choice = []
    for want, steps in zip(wants, tiers, strict=True):
        demand.work.spend(1 + want.units // 4)
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


def _together(demand: Demand, tiers: Sequence[Tiers]) -> Choice | None:
    selected = _selected(demand, tiers)
    if selected is None:
        return None
    stock = Stock(selected, demand.stock.units)
    limits = [want.allowed & selected & union(steps[-1]) for want, steps in zip(demand.wants, tiers, strict=True)]
    matching = Matching(stock, limits, demand.work)
    for asker, want in enumerate(demand.wants):
        if not matching.serve(asker, want.units, (mask for step in tiers[asker] for mask in step)):
            raise AssertionError("what was selected serves every request")
    return matching.taken


def _selected(demand: Demand, tiers: Sequence[Tiers]) -> int | None:
    """Offers that exclude nothing of each other and can serve all requests."""
    asked = [
        Asked(want.units, want.allowed & union(steps[-1])) for want, steps in zip(demand.wants, tiers, strict=True)
    ]
    return select(demand.assortment, asked, demand.work)
