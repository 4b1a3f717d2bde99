"""A node as decisions see it: its inventory under its policy, compiled once and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.cpuset import parse_cpu_set
from worker.accounting.capacity import Capacity, Surcharge, capacity_of, surcharge_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.inventory import Inventory
    from schemas.policy import Limit, Policy


@dataclass(frozen=True, slots=True)
class Host:
    """What a node may hand out.

    ``capacity`` has the plain resources; ``ceiling`` the same capacities as
    bare numbers, for the short road through :func:`worker.accounting.place.place`.
    """

    capacity: Mapping[str, Capacity]
    ceiling: Mapping[str, int]
    surcharge: Surcharge | None
    limits: Mapping[str, Limit]
    traits: frozenset[str]


def build_host(inventory: Inventory, policy: Policy, *, observed: bool) -> Host:
    """Compile an inventory and a policy.

    ``observed`` tells an inventory that a hypervisor reported from one that a
    producer pushed: of an observed one, no device is handed out unless the
    policy names it.
    """
    shared, dedicated = usable_cpus(inventory, policy)
    capacity = _capacity(inventory, policy, len(shared), len(dedicated))
    return Host(
        capacity=capacity,
        ceiling={name: known.capacity for name, known in capacity.items()},
        surcharge=surcharge_of(policy.overhead),
        limits=dict(sorted(policy.limits.items())),
        traits=frozenset(inventory.traits) | frozenset(policy.traits),
    )


def usable_cpus(inventory: Inventory, policy: Policy) -> tuple[frozenset[int], frozenset[int]]:
    """The online CPUs that guests may share, and those that may be given to one guest alone.

    A CPU that belongs to none of the cells cannot be dedicated: nothing is
    known of its neighbours.
    """
    online = parse_cpu_set(inventory.cpus)
    dedicated = frozenset[int]() if policy.dedicated_cpus is None else parse_cpu_set(policy.dedicated_cpus) & online
    if policy.shared_cpus is not None:
        shared = parse_cpu_set(policy.shared_cpus) & online
    else:
        shared = online if policy.dedicated_cpus is None else frozenset()
    if inventory.cells:
        dedicated &= frozenset[int]().union(*(parse_cpu_set(cell.cpus) for cell in inventory.cells))
    return shared, dedicated


def _capacity(inventory: Inventory, policy: Policy, shared: int, dedicated: int) -> dict[str, Capacity]:
    ratios, reserved = policy.ratios, policy.reserved
    return {
        "vcpus": capacity_of(shared, reserved.vcpus, ratios.vcpus),
        "pcpus": Capacity(dedicated, 0, dedicated),
        "memory_mib": capacity_of(inventory.memory_mib, reserved.memory_mib, ratios.memory),
        "disk_mib": capacity_of(inventory.disk_gib * 1024, reserved.disk_gib * 1024, ratios.disk),
        **{name: Capacity(total, 0, total) for name, total in sorted(inventory.custom.items())},
    }
