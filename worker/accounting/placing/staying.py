"""What an instance holds, kept where it lies: for one that asks for nothing more and nothing else.

Hosts change under their guests: CPUs go offline, cells become one, devices
vanish. That takes nothing from a guest that runs, and refuses it nothing but
growth: where there is no other place for it, it stays on what it has.
"""

from __future__ import annotations

from operator import le
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.cpuset import format_cpu_set, parse_cpu_set
from worker.accounting.assignments import assignment
from worker.accounting.host.devices import mdev_counter
from worker.accounting.placing.guests import Guest, guest_of
from worker.accounting.placing.place import amounts_of, chooses_pages
from worker.accounting.state.occupancy import Placement, isolated_counter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.outcomes import Reason
    from schemas.requests import DeviceRequest
    from worker.accounting.host.compiled import Host
    from worker.accounting.placing.guests import GuestCell
    from worker.accounting.placing.place import Request
    from worker.accounting.state.occupancy import Counters

Entry = dict[str, Any]


class _Kept(NamedTuple):
    charge: Counters
    pins: frozenset[int]
    cells: list[Entry]


def as_it_lies(host: Host, held: Placement, before: Request, shape: Request) -> Placement | None:
    """``held``, given for ``before``, as much smaller as ``shape`` is; None where that asks for more or something else.

    The plain amounts are those of ``shape``; whether they are there is not looked at.
    """
    guest, was = _meaning(shape), _meaning(before)
    if isinstance(guest, list) or isinstance(was, list):
        return None
    kept = _cells(guest, was, held)
    devices = _devices(held, before.devices, shape.devices)
    if kept is None or devices is None:
        return None
    charge = {**amounts_of(host, shape.resources, guest), **kept.charge}
    if guest is not None and chooses_pages(guest):
        small_mib = sum([amount for name, amount in kept.charge.items() if name.endswith("/memory_mib")])
        charge["memory_mib"] = charge.get("memory_mib", 0) + small_mib
    for entry in devices:
        if (mdev_type := entry.get("mdev_type")) is not None:
            counter = mdev_counter(entry["address"], mdev_type)
            charge[counter] = charge.get(counter, 0) + 1
    whole = tuple(entry["address"] for entry in devices if entry.get("mdev_type") is None)
    return Placement(charge, kept.pins, whole, assignment(host.floating, kept.cells, devices))


def _meaning(shape: Request) -> Guest | list[Reason] | None:
    return None if shape.topology is None else guest_of(shape.resources, shape.topology)


def _cells(guest: Guest | None, was: Guest | None, held: Placement) -> _Kept | None:
    """The guest's cells where they are, if each has what it asks for already, by the same rules."""
    if guest is None or was is None:
        return _Kept({}, frozenset(), []) if guest is was else None
    if _rules(guest) != _rules(was) or len(guest.cells) > len(was.cells):
        return None
    assigned: Any = held.assignment["cells"]
    entries: Mapping[int, Entry] = {entry["guest_cell"]: entry for entry in assigned}
    charge: Counters = {}
    pins: set[int] = set()
    cells: list[Entry] = []
    for number, (cell, old) in enumerate(zip(guest.cells, was.cells[: len(guest.cells)], strict=True)):
        entry = entries.get(number)
        if entry is None or not _holds(entry, cell, old) or not _charge_memory(charge, entry, cell, held.charge):
            return None
        kept = _pins(entry["pins"], cell)
        pins.update(kept.values(), parse_cpu_set(entry["emulator_cpus"]) & held.pins)
        if cell.need.shared:
            charge[f"cell/{entry['host_cell']}/vcpus"] = cell.need.shared
        shared = {
            "shared_vcpus": format_cpu_set(cell.shared),
            "shared_cpus": entry["shared_cpus"] if cell.need.shared else "",
        }
        cells.append({**entry, "memory_mib": cell.need.memory_mib, "pins": kept, **shared})
    alone = {name: 1 for cpu in pins if (name := isolated_counter(cpu)) in held.charge}
    return _Kept({**charge, **alone}, frozenset(pins), cells)


def _rules(guest: Guest) -> tuple[object, ...]:
    packed = guest.policy, guest.thread_policy, guest.cache, guest.emulator_threads
    return *packed, guest.page_size, guest.physnets, guest.tunneled


def _holds(entry: Entry, cell: GuestCell, old: GuestCell) -> bool:
    """Whether a cell asks for no more than it has."""
    return all(map(le, cell.need, old.need)) and cell.need.dedicated <= len(entry["pins"])


def _pins(had: Mapping[str, int], cell: GuestCell) -> dict[str, int]:
    """The CPUs of a cell's vCPUs: their own, and of those that are counted otherwise now the next that are left."""
    numbers = [str(vcpu) for vcpu in cell.dedicated]
    left = iter([cpu for vcpu, cpu in had.items() if vcpu not in numbers])
    return {vcpu: had[vcpu] if vcpu in had else next(left) for vcpu in numbers}


def _charge_memory(charge: Counters, entry: Entry, cell: GuestCell, held: Counters) -> bool:
    """Charge a cell's memory to what it lies in: False where that are pages which do not come to it exactly."""
    where = f"cell/{entry['host_cell']}/"
    if f"{where}memory_mib" in held:
        charge[f"{where}memory_mib"] = cell.need.memory_mib
    for counter in held:
        if counter.startswith(f"{where}pages/"):
            charge[counter], rest = divmod(cell.need.memory_mib * 1024, int(counter.rsplit("/", 1)[1]))
            if rest:
                return False
    return True


def _devices(held: Placement, before: Sequence[DeviceRequest], asked: Sequence[DeviceRequest]) -> list[Entry] | None:
    """The devices it has for the requests that it still makes, if those ask for no others and no more."""
    given: Any = held.assignment["devices"]
    known = {request.name: request for request in before}
    kept: list[Entry] = []
    for request in asked:
        old = known.get(request.name)
        mine = [entry for entry in given if entry["name"] == request.name][: request.count]
        if old is None or old.model_copy(update={"count": request.count}) != request or len(mine) < request.count:
            return None
        kept += mine
    return kept
