"""The cells of a host, and whether a cell of a guest fits on one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from schemas.cpuset import format_cpu_set, parse_cpu_mask
from worker.accounting.capacity import MILLION, grows, millionths
from worker.accounting.cpus import bits_of, mask_of, packable
from worker.accounting.pages import Pages, holds, page_size_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas.inventory import Cell, Inventory
    from schemas.policy import Policy
    from worker.accounting.requests import Guest, Need


@dataclass(frozen=True, slots=True)
class HostCell:
    """One NUMA cell of a host.

    ``shared`` and ``dedicated`` are masks of online CPUs. They are disjoint,
    or equal on a host that does not tell the two apart. ``cores`` are the
    sibling sets as masks, lowest CPU first, restricted to those CPUs. Ratios
    are in millionths; ``pages`` are sorted by size.
    """

    id: int
    socket: int | None
    shared: int
    dedicated: int
    cores: tuple[int, ...]
    threads_per_core: int
    memory_mib: int
    pages: tuple[Pages, ...]
    physnets: frozenset[str]
    tunneled: bool
    vcpu_ratio: int
    memory_ratio: int
    vcpus_counter: str
    memory_counter: str
    shared_cpus: str

    @property
    def isolating(self) -> bool:
        """Whether a core can be given whole to one vCPU: siblings would be taken that nobody is charged for."""
        return self.threads_per_core == 1 or self.dedicated == self.shared


class Room(NamedTuple):
    """What is taken on a host cell: the dedicated CPUs still free, shared vCPUs and memory in use."""

    cell: HostCell
    free: int
    vcpus: int
    memory_mib: int


def host_cell(cell: Cell, shared: int, dedicated: int, policy: Policy) -> HostCell:
    """Compile one cell of an inventory. Of its CPUs those in the masks ``shared`` and ``dedicated`` count."""
    cpus = parse_cpu_mask(cell.cpus)
    usable = cpus & (shared | dedicated)
    cores = [core for siblings in cell.siblings if (core := parse_cpu_mask(siblings) & usable)]
    alone = usable
    for core in cores:
        alone &= ~core
    cores += [1 << cpu for cpu in bits_of(alone)]
    cores.sort(key=lambda core: core & -core)
    reserved = {page.size_kib: page.count for page in policy.reserved.pages if page.cell == cell.id}
    return HostCell(
        id=cell.id,
        socket=cell.socket,
        shared=cpus & shared,
        dedicated=cpus & dedicated,
        cores=tuple(cores),
        threads_per_core=max((core.bit_count() for core in cores), default=1),
        memory_mib=cell.memory_mib,
        pages=tuple(
            Pages(size, total, reserved.get(size, 0), f"cell/{cell.id}/pages/{size}")
            for size, total in sorted((page.size_kib, page.total) for page in cell.pages)
        ),
        physnets=frozenset(cell.physnets),
        tunneled=cell.tunneled,
        vcpu_ratio=millionths(policy.ratios.vcpus),
        memory_ratio=millionths(policy.ratios.memory),
        vcpus_counter=f"cell/{cell.id}/vcpus",
        memory_counter=f"cell/{cell.id}/memory_mib",
        shared_cpus=format_cpu_set(bits_of(cpus & shared)),
    )


def host_cells(inventory: Inventory, policy: Policy, shared: int, dedicated: int) -> tuple[HostCell, ...]:
    """The cells of an inventory, lowest number first."""
    return tuple(host_cell(cell, shared, dedicated, policy) for cell in sorted(inventory.cells, key=lambda c: c.id))


def rooms_of(cells: Iterable[HostCell], used: Mapping[str, int], pinned: Iterable[int]) -> list[Room]:
    """What is taken on each of the cells."""
    free = ~mask_of(pinned)
    return [
        Room(cell, cell.dedicated & free, used.get(cell.vcpus_counter, 0), used.get(cell.memory_counter, 0))
        for cell in cells
    ]


def fitting_page_size(
    room: Room, guest: Guest, need: Need, used: Mapping[str, int], own: Mapping[str, int]
) -> int | None:
    """The page size in KiB a guest cell would get on a host cell, or None if it does not fit there.

    0 stands for a host that does not report pages. What does not grow beyond
    ``own`` does not refuse.
    """
    size = _memory_page_size(room, guest, need, used, own)
    if size is None or not _cpus_fit(room, guest, need, own):
        return None
    if guest.policy != "dedicated" and not _within_ratios(room, need, own):
        return None
    return size


def _memory_page_size(
    room: Room, guest: Guest, need: Need, used: Mapping[str, int], own: Mapping[str, int]
) -> int | None:
    cell, memory_mib = room.cell, need.memory_mib
    if guest.page_size is not None:
        return page_size_for(cell.pages, guest.page_size, memory_mib, used, own)
    pinned = guest.policy != "shared"
    if cell.pages:
        smallest = cell.pages[0]
        return smallest.size_kib if holds(smallest, memory_mib, used, own, whole=not pinned) else None
    available = cell.memory_mib - room.memory_mib if pinned else cell.memory_mib
    return 0 if memory_mib <= available or not grows(memory_mib, cell.memory_counter, own) else None


def _cpus_fit(room: Room, guest: Guest, need: Need, own: Mapping[str, int]) -> bool:
    cell = room.cell
    if need.shared > cell.shared.bit_count() and grows(need.shared, cell.vcpus_counter, own):
        return False
    if guest.policy == "shared":
        return True
    if need.dedicated + need.emulator > room.free.bit_count():
        return False
    policy = guest.thread_policy
    if policy == "require" and cell.threads_per_core == 1:
        return False
    if policy == "isolate" and not cell.isolating:
        return False
    return packable(cell.cores, room.free, need.dedicated, need.emulator, policy, cell.threads_per_core)


def _within_ratios(room: Room, need: Need, own: Mapping[str, int]) -> bool:
    cell = room.cell
    if (room.vcpus + need.shared) * MILLION > cell.shared.bit_count() * cell.vcpu_ratio and (
        grows(need.shared, cell.vcpus_counter, own)
    ):
        return False
    return (room.memory_mib + need.memory_mib) * MILLION <= cell.memory_mib * cell.memory_ratio or (
        not grows(need.memory_mib, cell.memory_counter, own)
    )
