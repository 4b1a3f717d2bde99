"""A node as decisions see it: its inventory under its policy, compiled once and never changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schemas.cpuset import format_cpu_set, parse_cpu_mask
from schemas.inventory import Cell
from worker.accounting.assignments import assignment
from worker.accounting.host.capacity import Capacity, Surcharge, capacity_of, handed_out, surcharge_of
from worker.accounting.host.cells import HostCell, host_cell, host_cells, sharing_less
from worker.accounting.host.cpus import bits_of, mask_of
from worker.accounting.host.devices import Catalog, build_catalog
from worker.accounting.host.pages import set_aside_mib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schemas.inventory import Inventory
    from schemas.policy import Limit, Policy


@dataclass(frozen=True, slots=True)
class Host:
    """What a node may hand out.

    ``capacity`` has the plain resources; ``ceiling`` the same capacities and
    ``hardware`` the same totals as bare numbers, for plain requests.
    ``cells`` is empty where the inventory knows of none; ``implicit`` is then
    the whole host as one cell. With ``pack``, cells that are in use are filled
    first. ``shared`` are all CPUs that guests may share; ``floating`` is where
    what is pinned to none may run: None, anywhere, where CPUs are not divided.
    ``unplaced`` is the assignment of a guest that lies anywhere, without devices.
    ``threads`` are the cores with siblings that guests could have.
    """

    capacity: Mapping[str, Capacity]
    ceiling: Mapping[str, int]
    hardware: Mapping[str, int]
    surcharge: Surcharge | None
    limits: Mapping[str, Limit]
    traits: frozenset[str]
    cells: tuple[HostCell, ...]
    implicit: HostCell
    pack: bool
    shared: frozenset[int]
    shared_cpus: str
    floating: str | None
    unplaced: Mapping[str, object]
    catalog: Catalog
    threads: tuple[int, ...]


def build_host(inventory: Inventory, policy: Policy, *, observed: bool) -> Host:
    """Compile an inventory and a policy.

    ``observed`` tells an inventory that a hypervisor reported from one that a
    producer pushed: of an observed one, no device is handed out unless the
    policy names it.
    """
    online = parse_cpu_mask(inventory.cpus)
    shared, dedicated = usable_cpus(inventory, policy, online)
    cells = host_cells(inventory, online, shared, dedicated, policy)
    capacity = _capacity(inventory, policy, shared.bit_count(), dedicated.bit_count(), cells)
    divided = policy.shared_cpus is not None or policy.dedicated_cpus is not None
    floating = format_cpu_set(bits_of(shared)) if divided else None
    whole = Cell(id=0, cpus=inventory.cpus, memory_mib=inventory.memory_mib)
    return Host(
        capacity=capacity,
        ceiling={name: known.capacity for name, known in capacity.items()},
        hardware={name: known.total for name, known in capacity.items()},
        surcharge=surcharge_of(policy.overhead),
        limits=dict(sorted(policy.limits.items())),
        traits=frozenset(inventory.traits) | frozenset(policy.traits),
        cells=cells,
        implicit=host_cell(whole, online, shared, dedicated, policy),
        pack=policy.cell_strategy == "pack",
        shared=frozenset(bits_of(shared)),
        shared_cpus=format_cpu_set(bits_of(shared)),
        floating=floating,
        unplaced=assignment(floating),
        catalog=build_catalog(inventory, policy, observed=observed),
        threads=tuple(core for cell in cells for core in cell.cores if core.bit_count() > 1),
    )


def beside_isolated(host: Host, alone: Iterable[int]) -> int:
    """The mask of siblings of CPUs whose holders have their cores alone: threads that came on later are nobody's."""
    mask = mask_of(alone)
    return sum([core & ~mask for core in host.threads if core & mask])


def without_pinned(host: Host, pinned: Mapping[int, object]) -> Host:
    """The host as it is beside these pinned CPUs, of which a later policy may share some: nobody shares them yet."""
    if not pinned or pinned.keys().isdisjoint(host.shared):
        return host
    shared = host.shared - pinned.keys()
    known, mask = host.capacity["vcpus"], mask_of(pinned)
    capacity = handed_out(len(shared), known.reserved, host.implicit.vcpu_ratio)
    floating = format_cpu_set(sorted(shared))
    return replace(
        host,
        capacity={**host.capacity, "vcpus": Capacity(len(shared), known.reserved, capacity)},
        ceiling={**host.ceiling, "vcpus": capacity},
        hardware={**host.hardware, "vcpus": len(shared)},
        cells=tuple(sharing_less(cell, mask) for cell in host.cells),
        implicit=sharing_less(host.implicit, mask),
        shared=shared,
        shared_cpus=floating,
        floating=floating,
        unplaced=assignment(floating),
    )


def usable_cpus(inventory: Inventory, policy: Policy, online: int) -> tuple[int, int]:
    """Masks of the online CPUs that guests may share, and of those that may be given to one guest alone.

    With neither set in the policy, all are shared; with the dedicated ones
    alone, none is. A CPU that belongs to none of the cells cannot be dedicated:
    nothing is known of its neighbours.
    """
    dedicated = 0 if policy.dedicated_cpus is None else parse_cpu_mask(policy.dedicated_cpus) & online
    if policy.shared_cpus is not None:
        shared = parse_cpu_mask(policy.shared_cpus) & online
    else:
        shared = online if policy.dedicated_cpus is None else 0
    if inventory.cells:
        placed = 0
        for cell in inventory.cells:
            placed |= parse_cpu_mask(cell.cpus)
        dedicated &= placed
    return shared, dedicated


def _small_memory(inventory: Inventory, cells: Sequence[HostCell]) -> int:
    """The memory that is not set aside as huge pages; the cells may tell of more than the whole node does."""
    there = max(inventory.memory_mib, sum([cell.memory_mib for cell in inventory.cells]))
    set_aside = sum([set_aside_mib(cell.pages) for cell in cells])
    return max(0, min(inventory.memory_mib, there - set_aside))


def _capacity(
    inventory: Inventory, policy: Policy, shared: int, dedicated: int, cells: Sequence[HostCell]
) -> dict[str, Capacity]:
    """What there is of the plain resources; of memory, what is not set aside as huge pages."""
    memory_mib = _small_memory(inventory, cells)
    ratios, reserved = policy.ratios, policy.reserved
    return {
        "vcpus": capacity_of(shared, reserved.vcpus, ratios.vcpus),
        "pcpus": Capacity(dedicated, 0, dedicated),
        "memory_mib": capacity_of(memory_mib, reserved.memory_mib, ratios.memory),
        "disk_mib": capacity_of(inventory.disk_gib * 1024, reserved.disk_gib * 1024, ratios.disk),
        **{name: Capacity(total, 0, total) for name, total in sorted((inventory.custom | policy.custom).items())},
    }
