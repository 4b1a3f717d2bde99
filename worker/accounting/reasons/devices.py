"""Why devices are refused: how many are missing, which would do, and who holds them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.cpuset import format_cpu_set
from worker.accounting.host.modes import bits, union
from worker.accounting.placing.selection import Asked, select
from worker.accounting.reasons.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from schemas.outcomes import Reason
    from worker.accounting.host.devices import Want
    from worker.accounting.placing.demand import Demand
    from worker.accounting.placing.matching import Tiers

MAX_SHOWN: Final = 64
"""How many devices one reason lists."""

MAX_SHOWN_TOGETHER: Final = 256
"""How many devices the reasons about one place list together."""


class _Short(NamedTuple):
    """A request, the offers it may take at most, and how many units it goes short of."""

    want: Want
    reach: int
    missing: int


def why_no_devices(
    demand: Demand, tiers: Sequence[Tiers], held: Mapping[str, UUID], near: Sequence[int] = ()
) -> list[Reason]:
    """A reason for each request that goes short when those before it have what they can.

    ``near`` are the host cells that the guest's cells would lie on, in their
    order. ``short_by`` further devices for each, there or where else its last
    tier reaches, would do.
    """
    short = [one for one in _short(demand, tiers) if one.missing]
    where = f", for a guest on cells {format_cpu_set(near)}" if near else ""
    shown = min(MAX_SHOWN, MAX_SHOWN_TOGETHER // max(1, len(short)))
    return [
        refusal(
            "no_device_fit",
            f"{one.want.units} {one.want.name} requested, {_words(demand, one)}{where}: {one.missing} too few",
            resource=one.want.name,
            requested=one.want.units,
            used=_matching(demand, one.want) - demand.stock.count(one.want.allowed),
            capacity=_matching(demand, one.want),
            short_by=one.missing,
            devices=list(_states(demand, one, held, shown)),
            cells=[{"cell": cell, "guest_cells": str(number)} for number, cell in enumerate(near)] or None,
        )
        for one in short
    ]


def _short(demand: Demand, tiers: Sequence[Tiers]) -> Iterator[_Short]:
    limits = [union(steps[-1]) for steps in tiers]
    for want, reach, grant in zip(demand.wants, limits, grants(demand, limits), strict=True):
        yield _Short(want, reach, want.units - grant)


def _matching(demand: Demand, want: Want) -> int:
    whole = want.allowed & demand.catalog.whole
    mediated = want.allowed & ~whole
    demand.work.spend(1 + mediated.bit_count() // 8)
    return whole.bit_count() + sum(demand.catalog.offers[number].units for number in bits(mediated))


def grants(demand: Demand, limits: Sequence[int]) -> list[int]:
    """How many units each request could have, out of its limit, when those before it have as many as they could."""
    wanted = [Asked(want.units, want.allowed & limit) for want, limit in zip(demand.wants, limits, strict=True)]
    granted: list[Asked] = []
    while len(granted) < len(wanted):
        rest = wanted[len(granted) :]
        full = _most(len(rest), lambda count: _served(demand, [*granted, *rest[:count]]))  # noqa: B023 # called at once
        granted += rest[:full]
        if full < len(rest):
            limit = rest[full].limit
            units = _most(rest[full].units - 1, lambda count: _served(demand, [*granted, Asked(count, limit)]))  # noqa: B023
            granted.append(Asked(units, limit))
            reach = demand.assortment.reach(limit)
            wanted[len(granted) :] = [_left(demand, one, reach) for one in rest[full + 1 :]]
    return [one.units for one in granted]


def _left(demand: Demand, one: Asked, exhausted: int) -> Asked:
    """A request, without what it can have none of: it reaches no kinds but those that another got too little of."""
    return one._replace(units=0) if demand.assortment.reach(one.limit) & ~exhausted == 0 else one


def _served(demand: Demand, asked: Sequence[Asked]) -> bool:
    return select(demand.assortment, asked, demand.work) is not None


def _most(most: int, possible: Callable[[int], bool]) -> int:
    """The largest count up to ``most`` that is possible, where every smaller one is possible too, and 0 always.

    It is looked for from above, further down by twice as much each time, for little is missing as a rule.
    """
    least, step = most, 1
    while least > 0 and not possible(least):
        most, least, step = least - 1, max(0, least - step), 2 * step
    while least < most:
        middle = (least + most + 1) // 2
        if possible(middle):
            least = middle
        else:
            most = middle - 1
    return least


def _words(demand: Demand, one: _Short) -> str:
    want = one.want
    matching = _matching(demand, want)
    if not matching:
        other = " or ".join(f"`type: {kind}`" for kind in demand.catalog.other_types(want.request, demand.work))
        return "none of the node's devices matches" + (f" (as {other} there is one that would)" if other else "")
    free, reachable = demand.stock.count(want.allowed), demand.stock.count(want.allowed & one.reach)
    words = f"{free} of {matching} that match are free"
    if reachable < free:
        words += f", {reachable} of them near enough"
    if reachable >= want.units:
        words += " but not for all requests together"
    return words


def _states(demand: Demand, one: _Short, held: Mapping[str, UUID], most: int) -> Iterator[dict[str, object]]:
    """The devices that match, so many at most, and what keeps each from the request."""
    numbers = list(islice(bits(one.want.allowed), most))
    demand.work.spend(1 + len(numbers) + len(held) // 8)
    shown = union([1 << number for number in numbers])
    related = demand.catalog.related
    holders = sorted(address for address in held if related.get(address, 0) & shown)
    for number in numbers:
        yield _state(demand, number, one.reach, held, holders)


def _state(
    demand: Demand, number: int, reach: int, held: Mapping[str, UUID], holders: Sequence[str]
) -> dict[str, object]:
    """One device that matches, and what keeps it from the request; ``holders`` are the held ones it may be kin of."""
    catalog, stock = demand.catalog, demand.stock
    device, mdev_type, _ = catalog.offers[number]
    state: dict[str, object] = {"address": device.address, "cell": device.cell}
    if mdev_type is not None:
        state["mdev_type"] = mdev_type
    if stock.free >> number & 1:
        state["free"] = stock.units.get(number, 1)
        if not reach >> number & 1:
            state["lacks"] = "affinity"
        return state
    kin = (address for address in holders if catalog.related[address] >> number & 1)
    holder = device.address if device.address in held else next(kin, None)
    if holder is None:
        state["lacks"] = "it, or a device above or below it, carries mediated devices"
        return state
    state["held_by"] = str(held[holder])
    if holder != device.address:
        state["lacks"] = f"{holder} excludes it"
    return state
