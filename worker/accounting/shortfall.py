"""Why devices are refused: how many are missing, which would do, and who holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.accounting.devices import bits
from worker.accounting.matching import choose, union
from worker.accounting.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from schemas.outcomes import Reason
    from worker.accounting.devices import Catalog, Demand, Stock, Want
    from worker.accounting.matching import Tiers

MAX_SHOWN: Final = 64
"""How many devices one reason lists."""


def why_no_devices(demand: Demand, tiers: Sequence[Tiers], held: Mapping[str, UUID], where: str = "") -> list[Reason]:
    """A reason for each request that goes short when those before it have what they can.

    ``short_by`` further devices for each, within its last tier, would do.
    """
    catalog, stock, wants, _ = demand
    granted = grants(demand, tiers)
    reasons: list[Reason] = []
    for want, steps, grant in zip(wants, tiers, granted, strict=True):
        if grant == want.units:
            continue
        reach = union(steps[-1])
        matching = sum(catalog.offers[number].units for number in bits(want.allowed))
        free = stock.count(want.allowed)
        reasons.append(
            refusal(
                "no_device_fit",
                f"{want.units} {want.name} requested, {_words(want, matching, free, stock.count(want.allowed & reach))}"
                f"{where}: {want.units - grant} too few",
                resource=want.name,
                requested=want.units,
                used=matching - free,
                capacity=matching,
                short_by=want.units - grant,
                devices=[
                    _state(catalog, stock, number, reach, held) for number in list(bits(want.allowed))[:MAX_SHOWN]
                ],
            )
        )
    return reasons


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


def _words(want: Want, matching: int, free: int, reachable: int) -> str:
    if not matching:
        return "none of the node's devices matches"
    words = f"{free} of {matching} that match are free"
    if reachable < free:
        words += f", {reachable} of them near enough"
    if reachable >= want.units:
        words += " but not for all requests together"
    return words


def _state(catalog: Catalog, stock: Stock, number: int, reach: int, held: Mapping[str, UUID]) -> dict[str, object]:
    """One device that matches, and what keeps it from the request."""
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
