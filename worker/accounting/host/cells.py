"""The cells of a host, and whether a cell of a guest fits on one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from schemas.cpuset import format_cpu_set, parse_cpu_mask
from worker.accounting.host.capacity import MILLION, grows, millionths
from worker.accounting.host.cpus import bits_of, mask_of, packable
from worker.accounting.host.pages import Pages, holds, page_size_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schemas.inventory import Cell, Inventory
    from schemas.policy import Policy
    from worker.accounting.placing.guests import Guest, Need


@dataclass(frozen=True, slots=True)
class HostCell:
    """One NUMA cell of a host.

    ``shared`` and ``dedicated`` are masks of online CPUs, with none in both.
    ``siblings`` are all sets of online CPUs that are threads of one core, in
    the inventory's order, in which they are used; ``cores`` are the same
    without the CPUs that are neither shared nor dedicated.
    Ratios are in millionths; ``pages`` are sorted by size.
    """

    id: int
    socket: int | None
    shared: int
    dedicated: int
    siblings: tuple[int, ...]
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
        return self.threads_per_core == 1


class Room(NamedTuple):
    """What is taken on a host cell: the CPUs free to be dedicated and their cores, shared vCPUs and memory in use."""

    cell: HostCell
    free: int
    cores: Sequence[int]
    vcpus: int
    memory_mib: int


def host_cell(cell: Cell, online: int, shared: int, dedicated: int, policy: Policy) -> HostCell:
    """Compile one cell of an inventory, given which CPUs of the host are online, shared and dedicated."""
    cpus = parse_cpu_mask(cell.cpus) & online
    siblings = [core for threads in cell.siblings if (core := parse_cpu_mask(threads) & cpus)]
    siblings += [1 << cpu for cpu in bits_of(cpus & ~sum(siblings))]
    cores = _cores(siblings, shared | dedicated)
    reserved = {page.size_kib: page.count for page in policy.reserved.pages if page.cell == cell.id}
    return HostCell(
        id=cell.id,
        socket=cell.socket,
        shared=cpus & shared,
        dedicated=cpus & dedicated,
        siblings=tuple(siblings),
        cores=cores,
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


def host_cells(inventory: Inventory, online: int, shared: int, dedicated: int, policy: Policy) -> tuple[HostCell, ...]:
    """The cells of an inventory, lowest number first."""
    cells = sorted(inventory.cells, key=lambda cell: cell.id)
    return tuple(host_cell(cell, online, shared, dedicated, policy) for cell in cells)


def _cores(siblings: Iterable[int], usable: int) -> tuple[int, ...]:
    """Sibling sets without the CPUs that cannot be used."""
    return tuple(core & usable for core in siblings if core & usable)


def rooms_of(cells: Iterable[HostCell], used: Mapping[str, int], pinned: Iterable[int], own: int = 0) -> list[Room]:
    """What is taken on each of the cells.

    ``own`` is the mask of CPUs that the guest has already: it may keep them
    also where they are no longer dedicated ones.
    """
    free = ~mask_of(pinned)
    return [
        Room(
            cell,
            (cell.dedicated | own & sum(cell.siblings)) & free if own else cell.dedicated & free,
            _cores(cell.siblings, cell.shared | cell.dedicated | own) if own else cell.cores,
            used.get(cell.vcpus_counter, 0),
            used.get(cell.memory_counter, 0),
        )
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
    return packable(room.cores, room.free, need.dedicated, need.emulator, policy, cell.threads_per_core)


def _within_ratios(room: Room, need: Need, own: Mapping[str, int]) -> bool:
    cell = room.cell
    if (room.vcpus + need.shared) * MILLION > cell.shared.bit_count() * cell.vcpu_ratio and (
        grows(need.shared, cell.vcpus_counter, own)
    ):
        return False
    return (room.memory_mib + need.memory_mib) * MILLION <= cell.memory_mib * cell.memory_ratio or (
        not grows(need.memory_mib, cell.memory_counter, own)
    )
