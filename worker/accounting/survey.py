"""A node as an operator sees it: its devices in pools, and what is held though the node no longer offers it.

Nothing here decides anything. Inventories change and policies are edited while
instances run: what they hold stays theirs, and is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas.cpuset import format_cpu_set
from worker.accounting.host.compiled import without_pinned
from worker.accounting.host.cpus import bits_of
from worker.accounting.host.modes import bits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from worker.accounting.host.compiled import Host
    from worker.accounting.host.devices import Offer
    from worker.accounting.state.occupancy import Occupancy

StrayKind = Literal["cpu", "device", "amount"]


@dataclass(frozen=True, slots=True)
class DevicePool:
    """Devices that no request can tell apart but by address; of mediated ones, units of one type."""

    vendor: str
    product: str
    type: str
    mdev_type: str | None
    cell: int | None
    live_migratable: bool | None
    tags: tuple[tuple[str, str], ...]
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Stray:
    """Something held that the node no longer hands out, and by whom where that is one instance."""

    kind: StrayKind
    name: str
    detail: str
    holder: UUID | None = None


def pools(host: Host, occupancy: Occupancy) -> list[DevicePool]:
    """The devices that the node hands out, in the order in which they are chosen."""
    stock = host.catalog.stock(occupancy.held, occupancy.used)
    members: dict[tuple[object, ...], list[int]] = {}
    for number, offer in enumerate(host.catalog.offers):
        members.setdefault(_distinctions(offer), []).append(number)
    return [
        _pool(
            host.catalog.offers[numbers[0]],
            total=sum(host.catalog.offers[number].units for number in numbers),
            free=stock.count(sum(1 << number for number in numbers)),
        )
        for numbers in members.values()
    ]


def strays(host: Host, occupancy: Occupancy) -> list[Stray]:
    """All that is held beyond what the node offers now."""
    return [*_stray_cpus(host, occupancy), *_stray_devices(host, occupancy), *_stray_amounts(host, occupancy)]


def _distinctions(offer: Offer) -> tuple[object, ...]:
    device = offer.device
    what = (device.vendor.lower(), device.product.lower(), device.type, offer.mdev_type)
    return (*what, device.cell, device.live_migratable, tuple(sorted(device.tags.items())))


def _pool(offer: Offer, *, total: int, free: int) -> DevicePool:
    device = offer.device
    return DevicePool(
        vendor=device.vendor.lower(),
        product=device.product.lower(),
        type="mdev" if offer.mdev_type is not None else device.type,
        mdev_type=offer.mdev_type,
        cell=device.cell,
        live_migratable=device.live_migratable,
        tags=tuple(sorted(device.tags.items())),
        total=total,
        free=free,
    )


def _stray_cpus(host: Host, occupancy: Occupancy) -> Iterator[Stray]:
    dedicated = sum(cell.dedicated for cell in host.cells or (host.implicit,))
    for cpu, holder in sorted(occupancy.pinned.items()):
        if not dedicated >> cpu & 1:
            known = format_cpu_set(bits_of(dedicated)) or "none"
            detail = f"CPU {cpu} is pinned and not among the dedicated CPUs that are online ({known})"
            yield Stray("cpu", str(cpu), detail, holder)


def _stray_devices(host: Host, occupancy: Occupancy) -> Iterator[Stray]:
    known = {host.catalog.offers[number].device.address for number in bits(host.catalog.whole)}
    for address, holder in sorted(occupancy.held.items()):
        if address not in known:
            present = "is not handed out any more" if address in host.catalog.related else "is gone"
            yield Stray("device", address, f"device {address} is held and {present}", holder)


def _stray_amounts(host: Host, occupancy: Occupancy) -> Iterator[Stray]:
    """Resources of which more is used than there is; memory and vCPUs of cells are bounded by ratios, not told here."""
    limits = {name: known.capacity for name, known in without_pinned(host, occupancy.pinned).capacity.items()}
    limits |= {offer.counter: offer.units for offer in host.catalog.offers if offer.mdev_type is not None}
    limits |= {pages.counter: pages.total - pages.reserved for cell in host.cells for pages in cell.pages[1:]}
    for name, amount in sorted(occupancy.used.items()):
        bounded = name in limits or name.startswith(("mdev/", "CUSTOM_"))
        if bounded and amount > limits.get(name, 0):
            yield Stray("amount", name, f"{amount} {name} are used and {limits.get(name, 0)} may be")
