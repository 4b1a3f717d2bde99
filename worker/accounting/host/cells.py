"""The cells of a host, and what is taken on each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from schemas.cpuset import format_cpu_set, parse_cpu_mask
from worker.accounting.host.capacity import handed_out, millionths
from worker.accounting.host.cpus import bits_of, mask_of
from worker.accounting.host.pages import Pages, pages_counter, set_aside_mib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schemas.inventory import Cell, Inventory
    from schemas.policy import Policy


@dataclass(frozen=True, slots=True)
class HostCell:
    """One NUMA cell of a host.

    ``shared`` and ``dedicated`` are masks of online CPUs, with none in both, and
    ``usable`` is of those that the policy lets be one or the other.
    ``siblings`` are all sets of online CPUs that are threads of one core, in
    the inventory's order, in which they are used; ``cores`` are the same
    without the CPUs that are neither shared nor dedicated.
    ``caches`` are those of the last level as far as they are known, with their online CPUs.
    ``isolating`` tells whether a core can be given whole to one vCPU: not where
    dedicated CPUs have siblings, which would be taken that nobody is charged for.
    Ratios are in millionths; ``pages`` are sorted by size. ``memory_mib`` is what
    is not set aside as huge pages, and ``overcommitted_mib`` what the memory
    ratio makes of it without the small pages that are reserved.
    """

    id: int
    socket: int | None
    shared: int
    dedicated: int
    usable: int
    siblings: tuple[int, ...]
    cores: tuple[int, ...]
    isolating: bool
    caches: tuple[int, ...]
    memory_mib: int
    overcommitted_mib: int
    pages: tuple[Pages, ...]
    physnets: frozenset[str]
    tunneled: bool
    vcpu_ratio: int
    vcpus_counter: str
    memory_counter: str
    shared_cpus: str


class Room(NamedTuple):
    """What is taken on a host cell: the CPUs free to be dedicated, shared vCPUs, and memory in no huge pages."""

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
    pages = tuple(
        Pages(size, total, reserved.get(size, 0), pages_counter(cell.id, size))
        for size, total in sorted((page.size_kib, page.total) for page in cell.pages)
    )
    memory_mib = max(0, cell.memory_mib - set_aside_mib(pages))
    kept_mib = pages[0].reserved * pages[0].size_kib // 1024 if pages else 0
    return HostCell(
        id=cell.id,
        socket=cell.socket,
        shared=cpus & shared,
        dedicated=cpus & dedicated,
        usable=cpus & (shared | dedicated),
        siblings=tuple(siblings),
        cores=cores,
        isolating=all(core.bit_count() == 1 for core in cores if core & dedicated),
        caches=tuple(mask for shared_by in cell.caches if (mask := parse_cpu_mask(shared_by) & cpus)),
        memory_mib=memory_mib,
        overcommitted_mib=handed_out(memory_mib, kept_mib, millionths(policy.ratios.memory)),
        pages=pages,
        physnets=frozenset(cell.physnets),
        tunneled=cell.tunneled,
        vcpu_ratio=millionths(policy.ratios.vcpus),
        vcpus_counter=f"cell/{cell.id}/vcpus",
        memory_counter=f"cell/{cell.id}/memory_mib",
        shared_cpus=format_cpu_set(bits_of(cpus & shared)),
    )


def host_cells(inventory: Inventory, online: int, shared: int, dedicated: int, policy: Policy) -> tuple[HostCell, ...]:
    """The cells of an inventory, lowest number first."""
    cells = sorted(inventory.cells, key=lambda cell: cell.id)
    return tuple(host_cell(cell, online, shared, dedicated, policy) for cell in cells)


def sharing_less(cell: HostCell, pinned: int) -> HostCell:
    """The same cell where pinned CPUs are shared with nobody."""
    shared = cell.shared & ~pinned
    return replace(cell, shared=shared, shared_cpus=format_cpu_set(bits_of(shared)))


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
            _cores(cell.siblings, cell.usable | own) if own else cell.cores,
            used.get(cell.vcpus_counter, 0),
            used.get(cell.memory_counter, 0),
        )
        for cell in cells
    ]
