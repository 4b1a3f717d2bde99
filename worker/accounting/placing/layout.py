"""Laying a guest's cells on a host's, with the networks and devices it needs near them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from schemas.cpuset import format_cpu_set
from worker.accounting.host.cells import rooms_of
from worker.accounting.host.pages import pages_counter, resettled
from worker.accounting.placing.fitting import fitting, is_small
from worker.accounting.placing.keeping import NOTHING, kept_on, licence_of, packing, positions_as_before
from worker.accounting.placing.matching import everywhere, possible
from worker.accounting.placing.nearby import Nearby
from worker.accounting.placing.search import arrange, matchable
from worker.accounting.reasons.cells import too_few_cells, why_no_cells, why_no_networks
from worker.accounting.reasons.devices import why_no_devices
from worker.accounting.reasons.refusals import unexplained
from worker.accounting.state.occupancy import isolated_counter
from worker.accounting.work import TooComplexError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.outcomes import Reason
    from worker.accounting.host.cells import HostCell, Room
    from worker.accounting.host.compiled import Host
    from worker.accounting.host.cpus import Packing
    from worker.accounting.placing.demand import Demand
    from worker.accounting.placing.fitting import Lack
    from worker.accounting.placing.flow import Choice
    from worker.accounting.placing.guests import Guest, GuestCell, Need
    from worker.accounting.placing.keeping import Former
    from worker.accounting.state.occupancy import Counters, Occupancy


class Layout(NamedTuple):
    """Where a guest lies: what its cells are charged, the CPUs it has alone, its cells in words, its devices."""

    charge: Counters
    pins: frozenset[int]
    cells: list[dict[str, object]]
    choice: Choice


class Table(NamedTuple):
    """What each guest cell would find on each host cell, by position: its page size, or what it lacks there."""

    rooms: Sequence[Room]
    found: Sequence[Sequence[int | list[Lack]]]

    def rows(self) -> list[int]:
        """For each guest cell the mask of positions where it fits."""
        masks: dict[int, int] = {}
        for found in self.found:
            if id(found) not in masks:
                masks[id(found)] = sum([1 << position for position, size in enumerate(found) if isinstance(size, int)])
        return [masks[id(found)] for found in self.found]

    def page_size(self, number: int, position: int) -> int:
        """The size in KiB of the pages a guest cell gets where it fits; 0 where the host does not report pages."""
        size = self.found[number][position]
        if not isinstance(size, int):
            raise ValueError(f"guest cell {number} does not fit on cell {self.rooms[position].cell.id}")  # noqa: TRY004
        return size


def tabulated(
    rooms: Sequence[Room], guest: Guest, used: Mapping[str, int], own: Mapping[str, int], former: Former
) -> Table:
    """Hold each guest cell against each host cell; those that are alike and not on the host yet, once."""
    licence = licence_of(own, former)
    known: dict[Need, list[int | list[Lack]]] = {}
    table: list[list[int | list[Lack]]] = []
    for number, cell in enumerate(guest.cells):
        here = number in former.cells
        found = None if here else known.get(cell.need)
        if found is None:
            found = [
                fitting(room, guest, cell.need, used, licence, pinned=here and _keeps(room, number, guest, former))
                for room in rooms
            ]
        if not here:
            known[cell.need] = found
        table.append(found)
    return Table(rooms, table)


def _keeps(room: Room, number: int, guest: Guest, former: Former) -> bool:
    """Whether a guest cell comes by all CPUs it needs on a host cell with those it has there."""
    return kept_on(room, number, guest, former) is not None


def lay(
    host: Host, occupancy: Occupancy, own: Mapping[str, int], guest: Guest, demand: Demand, former: Former
) -> Layout | list[Reason]:
    """Lay out a guest, or say why it cannot be.

    One that lies on the host already stays on its cells if it can. A host that
    knows of no cells still takes a guest that only wants dedicated CPUs: it is
    then one cell.
    """
    cells = host.cells or (() if guest.explicit else (host.implicit,))
    if len(cells) < len(guest.cells):
        return _too_few(guest, len(cells), demand, occupancy)
    work = demand.work
    work.spend(len(cells) + len(occupancy.pinned) // 8)
    rooms = in_order(rooms_of(cells, occupancy.used, occupancy.pinned, former.pins), guest, host, demand)
    work.spend(len({cell.need for cell in guest.cells}) * _effort(rooms, guest) + len(former.cells) * len(rooms))
    used = resettled([cell.pages for cell in cells], occupancy.used)
    table = tabulated(rooms, guest, used, own, former)
    rows = table.rows()
    nearby = Nearby([room.cell for room in rooms], guest, demand)
    positions = positions_as_before(former, rooms, rows)
    if positions is None or not nearby.satisfied(sum(1 << position for position in positions)):
        positions = arrange(rows, nearby if demand.wants or nearby.networks else None, work)
    if positions is None:
        return _why_not(table, rows, guest, nearby, occupancy)
    sizes = [table.page_size(number, position) for number, position in enumerate(positions)]
    return laid(guest, rooms, positions, sizes, host, former)._replace(choice=nearby.choice)


def _effort(rooms: Sequence[Room], guest: Guest) -> int:
    """The steps it takes to see on which host cells a guest cell fits."""
    steps = 2 * len(rooms)
    if guest.thread_policy in {"require", "isolate"}:
        steps += sum([len(room.cores) // 8 for room in rooms])
    if guest.cache is not None:
        steps += sum([len(room.cores) * (1 + len(room.cell.caches)) // 8 for room in rooms])
    return steps


def in_order(rooms: list[Room], guest: Guest, host: Host, demand: Demand) -> list[Room]:
    """The host's cells in the order in which they are tried.

    Where the guest takes them all, as they are. Otherwise cells with many free
    devices come first for a guest that wants devices and last for one that
    does not; then, to spread, those with the most CPUs and the most memory
    free, and to pack, those with the fewest and the least.
    """
    if len(rooms) == len(guest.cells):
        return rooms
    sign = 1 if host.pack else -1

    def key(room: Room) -> tuple[int, int, int]:
        devices = (host.catalog.by_cell.get(room.cell.id, 0) & host.catalog.whole & demand.stock.free).bit_count()
        cpus = -room.vcpus if guest.policy == "shared" else room.free.bit_count()
        return (-devices if demand.wants else devices, sign * cpus, sign * (room.cell.memory_mib - room.memory_mib))

    return sorted(rooms, key=key)


def laid(
    guest: Guest,
    rooms: Sequence[Room],
    positions: Sequence[int],
    sizes: Sequence[int],
    host: Host,
    former: Former = NOTHING,
) -> Layout:
    """A guest on the rooms at these positions, where its cells fit in pages of these sizes; without devices."""
    charge: Counters = {}
    pins: set[int] = set()
    assigned: list[dict[str, object]] = []
    for number, (cell, position, size) in enumerate(zip(guest.cells, positions, sizes, strict=True)):
        room = rooms[position]
        packed = None
        if guest.policy != "shared":
            packed = packing(room, number, guest, former)
            pins.update(packed.pins, packed.emulator)
        _charge_cell(charge, room.cell, cell, size)
        assigned.append(_assigned(number, cell, room.cell, packed, size if guest.page_size is not None else None))
    if guest.emulator_threads == "share" and guest.policy != "shared":
        assigned[0]["emulator_cpus"] = host.shared_cpus
    if guest.thread_policy == "isolate":
        charge.update(dict.fromkeys(map(isolated_counter, pins), 1))
    return Layout(charge, frozenset(pins), assigned, [])


def _charge_cell(charge: Counters, host_cell: HostCell, cell: GuestCell, size_kib: int) -> None:
    if cell.need.shared:
        charge[host_cell.vcpus_counter] = cell.need.shared
    if is_small(host_cell, size_kib):
        charge[host_cell.memory_counter] = cell.need.memory_mib
    if size_kib:
        charge[pages_counter(host_cell.id, size_kib)] = cell.need.memory_mib * 1024 // size_kib


def _assigned(
    number: int, cell: GuestCell, host_cell: HostCell, packed: Packing | None, size_kib: int | None
) -> dict[str, object]:
    pins = zip(cell.dedicated, packed.pins, strict=True) if packed is not None else ()
    return {
        "guest_cell": number,
        "host_cell": host_cell.id,
        "memory_mib": cell.need.memory_mib,
        "page_size_kib": size_kib,
        "pins": {str(vcpu): cpu for vcpu, cpu in pins},
        "shared_vcpus": format_cpu_set(cell.shared),
        "shared_cpus": host_cell.shared_cpus if cell.need.shared else "",
        "emulator_cpus": format_cpu_set(packed.emulator) if packed is not None else "",
    }


def _why_not(table: Table, rows: Sequence[int], guest: Guest, nearby: Nearby, occupancy: Occupancy) -> list[Reason]:
    """All that stands in the way: room for the cells, the networks, and the devices, which are to be near the cells."""
    demand = nearby.demand.explaining()
    refused: list[Reason] = []
    try:
        room = matchable(rows, demand.work)
        if not room:
            refused.append(why_no_cells(table.rooms, rows, guest, table.found, demand.work))
        where = rows if room else [(1 << len(table.rooms)) - 1] * len(rows)
        alone = demand._replace(wants=(), kept=())
        positions = arrange(where, Nearby(nearby.cells, guest, alone), demand.work) if room or nearby.networks else []
        if positions is None:
            refused.append(why_no_networks(table.rooms, rows, guest))
        if refused or positions is None:
            return refused + _missing_devices(demand, occupancy)
        nearby.demand = demand
        tiers = nearby.tiers(sum(1 << position for position in positions))
        return why_no_devices(demand, tiers, occupancy.held, [nearby.cells[position].id for position in positions])
    except TooComplexError:
        return [*refused, unexplained("no_numa_fit", "the node's cells do not have together what the guest asks for")]


def _missing_devices(demand: Demand, occupancy: Occupancy) -> list[Reason]:
    """The devices that are missing wherever the guest lies; ``demand`` is that of explaining."""
    anywhere = everywhere(demand)
    if not demand.wants or possible(demand, anywhere):
        return []
    return why_no_devices(demand, anywhere, occupancy.held)


def _too_few(guest: Guest, cells: int, demand: Demand, occupancy: Occupancy) -> list[Reason]:
    """The host has fewer cells than the guest; and the devices that it lacks besides."""
    refused = [too_few_cells(len(guest.cells), cells)]
    try:
        return refused + _missing_devices(demand.explaining(), occupancy)
    except TooComplexError:
        return [*refused, unexplained("no_numa_fit", "the guest's cells and devices are not all there")]
