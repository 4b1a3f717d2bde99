"""What an instance holds on a node already, so that a new decision there changes as little as it can.

A running guest whose size changes should stay on its cells, keep its CPUs and
keep its devices: each change of them is work for the hypervisor, and a device
may not be taken from under a guest at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.cpuset import parse_cpu_set
from worker.accounting.host.cpus import Packing, attainable, extended, follows, mask_of, pack
from worker.accounting.host.modes import bits
from worker.accounting.placing.caching import caches_of, in_reach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.requests import CachePolicy, ThreadPolicy
    from worker.accounting.host.cells import Room
    from worker.accounting.host.devices import Catalog
    from worker.accounting.placing.guests import Guest, GuestCell
    from worker.accounting.placing.matching import Tiers
    from worker.accounting.state.occupancy import Placement


class FormerCell(NamedTuple):
    """Where a guest cell lies now: its host cell, the host CPU of each dedicated vCPU, its emulator CPUs."""

    host_cell: int
    pins: Mapping[int, int]
    emulator: Sequence[int]


class Former(NamedTuple):
    """What an instance holds: the mask of its CPUs, its cells by number, its devices by request; and by which rules.

    ``thread_policy`` and ``cache`` are those of its CPUs. ``backed`` tells that its memory has
    pages of its own, and ``rated`` that the memory ratio bounds it.
    """

    pins: int
    cells: Mapping[int, FormerCell]
    devices: Mapping[str, frozenset[tuple[str, str | None]]]
    thread_policy: ThreadPolicy | None = None
    cache: CachePolicy | None = None
    backed: bool = True
    rated: bool = True


NOTHING: Final = Former(0, {}, {})


class Licence(NamedTuple):
    """What a guest is charged now and may be charged again: in all, of backed memory, and of memory under a ratio.

    What is held under another rule is none under this one.
    """

    own: Mapping[str, int]
    backed: Mapping[str, int]
    rated: Mapping[str, int]


def licence_of(own: Mapping[str, int], former: Former) -> Licence:
    """What may be held as before of what the instance is charged."""
    return Licence(own, own if former.backed else {}, own if former.rated else {})


def former_of(
    held: Sequence[Placement], thread_policy: ThreadPolicy | None = None, cache: CachePolicy | None = None
) -> Former:
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
    charge, sized = held[0].charge, any(cell["page_size_kib"] is not None for cell in assignment["cells"])
    return Former(
        mask_of(pins),
        cells,
        devices,
        thread_policy,
        cache,
        backed="pcpus" in charge or sized,
        rated="pcpus" not in charge or "vcpus" in charge,
    )


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


def kept_on(room: Room, number: int, guest: Guest, former: Former) -> Packing | None:
    """The CPUs a guest cell has on a host cell already, and more for vCPUs that are new.

    None where it has none there, or where it would come by more, or by an
    arrangement that follows the thread policy, only with others. What was given
    under this policy may stay in any case as it is.
    """
    cell, before = guest.cells[number], former.cells.get(number)
    if before is None or before.host_cell != room.cell.id:
        return None
    kept = {vcpu: before.pins[vcpu] for vcpu in cell.dedicated if vcpu in before.pins}
    as_it_is = Packing(list(kept.values()), list(before.emulator[: cell.need.emulator]))
    if not kept:
        return None
    grows = len(kept) < cell.need.dedicated or len(as_it_is.emulator) < cell.need.emulator
    stays = not grows and (guest.thread_policy, guest.cache) == (former.thread_policy, former.cache)
    if stays and len(kept) == len(before.pins):
        return as_it_is
    if (packed := _enlarged(room, cell, guest, kept, as_it_is)) is not None:
        return packed
    return as_it_is if stays and in_reach(room, guest, cell.need) < cell.need.dedicated else None


def _enlarged(room: Room, cell: GuestCell, guest: Guest, kept: Mapping[int, int], as_it_is: Packing) -> Packing | None:
    """The CPUs that are kept and as many more as are wanted; None if all together do not follow the thread policy."""
    pins, emulator, policy = as_it_is.pins, as_it_is.emulator, guest.thread_policy
    taken = mask_of([*pins, *emulator])
    if taken & ~room.free or not follows(room.cores, mask_of(emulator), _alone(guest)):
        return None
    missing, caches = cell.need.dedicated - len(pins), caches_of(room, guest, cell.need)
    added = extended(room.cores, room.free & ~taken, pins, missing, policy, caches)
    if added is None:
        return None
    free = room.free & ~mask_of([*pins, *added, *emulator])
    reserved = cell.need.emulator - len(emulator)
    if reserved > attainable(room.cores, free, 0, _alone(guest)):
        return None
    fresh = iter(added)
    more = pack(room.cores, free, reserved, 0, _alone(guest)).pins
    return Packing([kept[vcpu] if vcpu in kept else next(fresh) for vcpu in cell.dedicated], emulator + more)


def packing(room: Room, number: int, guest: Guest, former: Former) -> Packing:
    """Host CPUs for a guest cell on a host cell where it fits: those it has, as far as the thread policy allows."""
    kept = kept_on(room, number, guest, former)
    if kept is not None:
        return kept
    need = guest.cells[number].need
    caches = caches_of(room, guest, need)
    return pack(room.cores, room.free, need.dedicated, need.emulator, guest.thread_policy, caches)


def _alone(guest: Guest) -> ThreadPolicy | None:
    """The thread policy of emulator threads: cores of their own if the vCPUs have that, else any CPU."""
    return "isolate" if guest.thread_policy == "isolate" else None
