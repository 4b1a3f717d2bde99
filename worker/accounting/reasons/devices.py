"""Why devices are refused: how many are missing, which would do, and who holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.cpuset import format_cpu_set
from worker.accounting.host.devices import bits
from worker.accounting.placing.matching import choose, union
from worker.accounting.reasons.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from schemas.outcomes import Reason
    from worker.accounting.host.devices import Demand, Want
    from worker.accounting.placing.matching import Tiers

MAX_SHOWN: Final = 64
"""How many devices one reason lists."""

MAX_SHOWN_IN_ALL: Final = 512
"""How many devices the reasons of one node list together."""


def why_no_devices(
    demand: Demand, tiers: Sequence[Tiers], held: Mapping[str, UUID], near: Sequence[int] = ()
) -> list[Reason]:
    """A reason for each request that goes short when those before it have what they can.

    ``near`` are the host cells that the guest's cells would lie on, in their
    order. ``short_by`` further devices for each, there or where else its last
    tier reaches, would do.
    """
    short = [(want, reach, missing) for want, reach, missing in _short(demand, tiers) if missing]
    shown = min(MAX_SHOWN, MAX_SHOWN_IN_ALL // max(1, len(short)))
    where = f", for a guest on cells {format_cpu_set(near)}" if near else ""
    return [
        refusal(
            "no_device_fit",
            f"{want.units} {want.name} requested, {_words(demand, want, reach)}{where}: {missing} too few",
            resource=want.name,
            requested=want.units,
            used=_matching(demand, want) - demand.stock.count(want.allowed),
            capacity=_matching(demand, want),
            short_by=missing,
            devices=[_state(demand, number, reach, held) for number in list(bits(want.allowed))[:shown]],
            cells=[{"cell": cell, "guest_cells": str(number)} for number, cell in enumerate(near)] or None,
        )
        for want, reach, missing in short
    ]


def _short(demand: Demand, tiers: Sequence[Tiers]) -> Iterator[tuple[Want, int, int]]:
    """For each request, where it may take from at most, and how many units it goes short of."""
    for want, steps, grant in zip(demand.wants, tiers, grants(demand, tiers), strict=True):
        yield want, union(steps[-1]), want.units - grant


def _matching(demand: Demand, want: Want) -> int:
    return sum(demand.catalog.offers[number].units for number in bits(want.allowed))


def grants(demand: Demand, tiers: Sequence[Tiers]) -> list[int]:
    """How many units each request could have when those before it have as many as they could."""
    granted: list[Want] = []
    for position, want in enumerate(demand.wants):
        least, most = 0, want.units
        middle = most
        while least < most:
            trial = [*granted, want._replace(units=middle)]
            if choose(demand._replace(wants=trial), tiers[: position + 1]) is None:
                most = middle - 1
            else:
                least = middle
            middle = (least + most + 1) // 2
        granted.append(want._replace(units=least))
    return [want.units for want in granted]


def _words(demand: Demand, want: Want, reach: int) -> str:
    matching = _matching(demand, want)
    if not matching:
        other = " or ".join(f"`type: {kind}`" for kind in demand.catalog.other_types(want.request))
        return "none of the node's devices matches" + (f" (as {other} there is one that would)" if other else "")
    free, reachable = demand.stock.count(want.allowed), demand.stock.count(want.allowed & reach)
    words = f"{free} of {matching} that match are free"
    if reachable < free:
        words += f", {reachable} of them near enough"
    if reachable >= want.units:
        words += " but not for all requests together"
    return words


def _state(demand: Demand, number: int, reach: int, held: Mapping[str, UUID]) -> dict[str, object]:
    """One device that matches, and what keeps it from the request."""
    catalog, stock, _, _ = demand
    device, mdev_type, _ = catalog.offers[number]
    state: dict[str, object] = {"address": device.address, "cell": device.cell}
    if mdev_type is not None:
        state["mdev_type"] = mdev_type
    if stock.free >> number & 1:
        state["free"] = stock.units.get(number, 1)
        if not reach >> number & 1:
            state["lacks"] = "affinity"
        return state
    kin = (address for address in sorted(held) if catalog.related.get(address, 0) >> number & 1)
    holder = device.address if device.address in held else next(kin, None)
    if holder is None:
        state["lacks"] = "it, or a device above or below it, carries mediated devices"
        return state
    state["held_by"] = str(held[holder])
    if holder != device.address:
        state["lacks"] = f"{holder} excludes it"
    return state
