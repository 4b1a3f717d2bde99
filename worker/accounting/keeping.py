"""What an instance holds on a node already, so that a new decision there changes as little as it can.

A running guest whose size changes should stay on its cells, keep its CPUs and
keep its devices: each change of them is work for the hypervisor, and a device
may not be taken from under a guest at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.cpuset import parse_cpu_set
from worker.accounting.cpus import Packing, mask_of, pack, packable
from worker.accounting.modes import bits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.accounting.cells import Room
    from worker.accounting.devices import Catalog
    from worker.accounting.matching import Tiers
    from worker.accounting.requests import Guest, GuestCell
    from worker.accounting.state import Placement


class FormerCell(NamedTuple):
    """Where a guest cell lies now: its host cell, the host CPU of each dedicated vCPU, its emulator CPUs."""

    host_cell: int
    pins: Mapping[int, int]
    emulator: Sequence[int]


class Former(NamedTuple):
    """What an instance holds: the mask of its CPUs, its cells by number, its devices by request."""

    pins: int
    cells: Mapping[int, FormerCell]
    devices: Mapping[str, frozenset[tuple[str, str | None]]]


NOTHING: Final = Former(0, {}, {})


def former_of(held: Sequence[Placement]) -> Former:
    """What the placements of one instance on one node say of where it is; the first says where its cells are."""
    if not held:
        return NOTHING
    assignment: Any = held[0].assignment
    pins = frozenset[int]().union(*(placement.pins for placement in held))
    cells = {
        cell["guest_cell"]: FormerCell(
            cell["host_cell"],
            {int(vcpu): cpu for vcpu, cpu in cell["pins"].items() if cpu in pins},
            [cpu for cpu in sorted(parse_cpu_set(cell["emulator_cpus"])) if cpu in pins],
        )
        for cell in assignment["cells"]
    }
    devices: dict[str, frozenset[tuple[str, str | None]]] = {}
    for device in assignment["devices"]:
        known = devices.get(device["name"], frozenset())
        devices[device["name"]] = known | {(device["address"], device.get("mdev_type"))}
    return Former(mask_of(pins), cells, devices)


def kept_offers(catalog: Catalog, former: Former, name: str) -> int:
    """The mask of the offers that the instance holds for the request ``name``."""
    return sum(
        1 << number
        for address, mdev_type in former.devices.get(name, ())
        for number in bits(catalog.on.get(address, 0))
        if catalog.offers[number].mdev_type == mdev_type
    )


def favouring(tiers: Tiers, kept: int) -> Tiers:
    """The same tiers, each beginning with what is held, if it is in reach at all."""
    if not kept:
        return tiers
    reach = 0
    for mask in tiers[-1]:
        reach |= mask
    kept &= reach
    return tuple((kept, *(mask & ~kept for mask in step)) for step in tiers)


def positions_as_before(former: Former, rooms: Sequence[Room], rows: Sequence[int]) -> list[int] | None:
    """The positions of the host cells that the guest's cells lie on, if there are as many and all still fit."""
    if former.cells.keys() != set(range(len(rows))):
        return None
    place = {room.cell.id: position for position, room in enumerate(rooms)}
    positions = [place.get(former.cells[number].host_cell, -1) for number in range(len(rows))]
    fits = all(position >= 0 and row >> position & 1 for position, row in zip(positions, rows, strict=True))
    return positions if fits and len(set(positions)) == len(positions) else None


def packing(room: Room, cell: GuestCell, guest: Guest, before: FormerCell | None) -> Packing:
    """Host CPUs for a guest cell on a host cell where it fits: those it has, as far as the thread policy allows."""
    if before is not None and before.host_cell == room.cell.id:
        kept = _keeping(room, cell, guest, before)
        if kept is not None:
            return kept
    return pack(
        room.cores,
        room.free,
        cell.need.dedicated,
        cell.need.emulator,
        guest.thread_policy,
        room.cell.threads_per_core,
    )


def _keeping(room: Room, cell: GuestCell, guest: Guest, before: FormerCell) -> Packing | None:
    """What the cell has, and more for vCPUs that are new; None if that breaks the thread policy."""
    kept = {vcpu: before.pins[vcpu] for vcpu in cell.dedicated if vcpu in before.pins}
    emulator = list(before.emulator[: cell.need.emulator])
    taken = mask_of([*kept.values(), *emulator])
    if not kept or taken & ~room.free or not _follows(room, mask_of(kept.values()), taken, guest):
        return None
    more, reserved = len(cell.dedicated) - len(kept), cell.need.emulator - len(emulator)
    if not more and not reserved:
        return Packing(list(kept.values()), emulator)
    host, policy, free = room.cell, guest.thread_policy, room.free & ~taken
    cores = [core for core in room.cores if not core & taken] if policy == "isolate" else room.cores
    if not packable(cores, free, more, reserved, policy, host.threads_per_core):
        return None
    added = pack(cores, free, more, reserved, policy, host.threads_per_core)
    fresh = iter(added.pins)
    pins = [kept[vcpu] if vcpu in kept else next(fresh) for vcpu in cell.dedicated]
    return Packing(pins, emulator + added.emulator)


def _follows(room: Room, pins: int, taken: int, guest: Guest) -> bool:
    """Whether CPUs lie on their cores as the thread policy wants."""
    used = [core for core in room.cores if core & taken]
    if guest.thread_policy == "isolate":
        whole = all(core & ~room.free == 0 and (core & taken).bit_count() == 1 for core in used)
        return whole and all(core.bit_count() == room.cell.threads_per_core for core in used if core & pins)
    if guest.thread_policy == "require":
        return sum((core & pins).bit_count() == 1 for core in used) <= 1
    return True
