"""Whether a request has room on a node, worked out from scratch: the slow and plain way, on JSON values.

Shares no code with the worker. Knows what the model's fleet uses: plain
amounts, guests with CPUs of their own on one or several cells, and functions of
network cards.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from typing import Any

Json = dict[str, Any]
Amounts = dict[str, int]


def cpu_set(text: str | None) -> set[int]:
    cpus: set[int] = set()
    for part in (text or "").split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def cpu_pools(inventory: Json, policy: Json) -> tuple[set[int], set[int]]:
    """The CPUs that guests share, and those that are given away alone."""
    online = cpu_set(inventory["cpus"])
    dedicated = cpu_set(policy.get("dedicated_cpus")) & online
    shared = cpu_set(policy["shared_cpus"]) & online if "shared_cpus" in policy else online
    if "dedicated_cpus" in policy and "shared_cpus" not in policy:
        shared = set()
    if cells := inventory.get("cells"):
        dedicated &= set().union(*(cpu_set(cell["cpus"]) for cell in cells))
    return shared, dedicated


def hardware(inventory: Json, policy: Json, pinned: set[int]) -> Amounts:
    """What there is in all: no instance holds more. A pinned CPU is shared with nobody, whatever the policy says."""
    shared, dedicated = cpu_pools(inventory, policy)
    return {
        "vcpus": len(shared - pinned),
        "pcpus": len(dedicated),
        "memory_mib": inventory["memory_mib"],
        "disk_mib": 1024 * inventory.get("disk_gib", 0),
        **inventory.get("custom", {}),
        **policy.get("custom", {}),
    }


def capacity(inventory: Json, policy: Json, pinned: set[int]) -> Amounts:
    there = hardware(inventory, policy, pinned)
    ratios, reserved = policy.get("ratios", {}), policy.get("reserved", {})

    def handed_out(total: int, kept: int, ratio: str) -> int:
        return int(max(0, total - kept) * Fraction(ratio))

    return {
        **there,
        "vcpus": handed_out(there["vcpus"], reserved.get("vcpus", 0), ratios.get("vcpus", "4")),
        "memory_mib": handed_out(there["memory_mib"], reserved.get("memory_mib", 512), ratios.get("memory", "1")),
        "disk_mib": handed_out(there["disk_mib"], 0, ratios.get("disk", "1")),
    }


def guest_cells(shape: Json) -> list[tuple[int, int]]:
    """CPUs of its own and memory of each cell of a guest; none for a guest that shares CPUs."""
    topology = shape.get("topology")
    if not topology:
        return []
    count = topology.get("cells", 1)
    resources = shape["resources"]
    return [(resources["vcpus"] // count, resources["memory_mib"] // count)] * count


def host_cells(inventory: Json, shape: Json) -> list[Json]:
    if inventory.get("cells"):
        return list(inventory["cells"])
    if "cells" in (shape.get("topology") or {}):
        return []
    return [{"id": 0, "cpus": inventory["cpus"], "memory_mib": inventory["memory_mib"]}]


def plain_charge(shape: Json, policy: Json) -> Amounts:
    resources, overhead = shape["resources"], policy.get("overhead", {})
    disk = resources.get("disk", {})
    memory_mib = resources["memory_mib"] + overhead.get("memory_mib", 0)
    memory_mib += resources["vcpus"] * overhead.get("memory_mib_per_vcpu", 0)
    charge = {
        "pcpus" if shape.get("topology") else "vcpus": resources["vcpus"],
        "memory_mib": memory_mib,
        "disk_mib": 1024 * (disk.get("root_gib", 0) + disk.get("ephemeral_gib", 0)) + disk.get("swap_mib", 0),
        **resources.get("custom", {}),
    }
    return {name: amount for name, amount in charge.items() if amount}


def cell_charge(inventory: Json, cells: list[Json]) -> Amounts:
    """Memory on each host cell, and the pages for it where the host counts pages: the smallest there are."""
    charge = {f"cell/{cell['host_cell']}/memory_mib": cell["memory_mib"] for cell in cells}
    sizes = {
        host["id"]: min(p["size_kib"] for p in host["pages"])
        for host in inventory.get("cells", [])
        if host.get("pages")
    }
    for cell in cells:
        if size := sizes.get(cell["host_cell"]):
            charge[f"cell/{cell['host_cell']}/pages/{size}"] = cell["memory_mib"] * 1024 // size
    return charge


def offered(inventory: Json, policy: Json, *, observed: bool) -> dict[str, Json]:
    patterns = policy.get("devices", [] if observed else None)
    return {
        device["address"]: device
        for device in inventory.get("devices", [])
        if patterns is None or any(pattern["vendor"] == device["vendor"] for pattern in patterns)
    }


def kin(inventory: Json, address: str) -> set[str]:
    """The physical function of a virtual one, or the virtual ones of a physical one."""
    devices = inventory.get("devices", [])
    above = {device["parent"] for device in devices if device["address"] == address and device.get("parent")}
    return above | {device["address"] for device in devices if device.get("parent") == address}


def missing(inventory: Json, policy: Json, shape: Json, others: Json, own: Amounts, *, observed: bool) -> set[str]:
    """The codes of everything that stands against a request; none if there is room.

    ``others`` is what other instances have of the node: ``used`` amounts,
    ``pins`` and ``devices``; and ``own_pins`` are the CPUs the instance has
    itself. ``own`` is what it is charged there now.
    """
    codes = set()
    pinned = others["pins"] | (others["own_pins"] if shape.get("topology") else set())
    most, there = capacity(inventory, policy, pinned), hardware(inventory, policy, pinned)
    for name, amount in plain_charge(shape, policy).items():
        if amount > own.get(name, 0):
            if name not in most:
                codes.add("unknown_resource")
            elif others["used"].get(name, 0) + amount > most[name] or amount > there[name]:
                codes.add("insufficient")
    cells = guest_cells(shape)
    hosts = host_cells(inventory, shape)
    near = (shape.get("topology") or {}).get("cache") == "require"
    if len(hosts) < len(cells) or (cells and not _cells_fit(inventory, policy, cells, hosts, others, own, near=near)):
        codes.add("no_numa_fit")
    requests = shape.get("devices", [])
    if any(not _devices_free(inventory, policy, request, others, observed=observed) for request in requests):
        codes.add("no_device_fit")
    return codes


def _cells_fit(
    inventory: Json,
    policy: Json,
    cells: list[tuple[int, int]],
    hosts: list[Json],
    others: Json,
    own: Amounts,
    *,
    near: bool,
) -> bool:
    kept = others["own_pins"] & cpu_set(inventory["cpus"])
    dedicated = cpu_pools(inventory, policy)[1] | kept
    free = dedicated - others["pins"]

    def holds(host: Json, cpus: int, memory_mib: int) -> bool:
        name = f"cell/{host['id']}/memory_mib"
        room = host["memory_mib"] - others["used"].get(name, 0)
        return (
            len(free & cpu_set(host["cpus"])) >= cpus
            and (not near or _within_few_caches(host, cpus, dedicated, free))
            and (memory_mib <= room or memory_mib <= own.get(name, 0))
        )

    return any(
        all(holds(host, *cell) for host, cell in zip(choice, cells, strict=True))
        for choice in permutations(hosts, len(cells))
    )


def _within_few_caches(host: Json, cpus: int, dedicated: set[int], free: set[int]) -> bool:
    """Whether as few of a cell's caches have so many CPUs free as could have them at all."""
    caches = [cpu_set(cache) for cache in host.get("caches", [])]
    could = sorted((len(cache & dedicated) for cache in caches), reverse=True)
    now = sorted((len(cache & free) for cache in caches), reverse=True)
    fewest = next((count for count in range(len(caches) + 1) if sum(could[:count]) >= cpus), len(caches))
    return sum(now[:fewest]) >= cpus


def grows(policy: Json, shape: Json, held: list[Any]) -> bool:
    """Whether a request takes more in sum than the instance has of anything: amounts, memory on cells, devices."""
    own: Amounts = {"memory on cells": 0, "devices": 0}
    for one in held:
        own |= {name: max(amount, own.get(name, 0)) for name, amount in one.charge.items()}
        on_cells = sum(n for name, n in one.charge.items() if name.startswith("cell/") and name.endswith("memory_mib"))
        own["memory on cells"] = max(own["memory on cells"], on_cells)
        own["devices"] = max(own["devices"], len(one.devices))
    wanted = plain_charge(shape, policy)
    wanted["memory on cells"] = sum(memory_mib for _, memory_mib in guest_cells(shape))
    wanted["devices"] = sum(request["count"] for request in shape.get("devices", []))
    return any(amount > own.get(name, 0) for name, amount in wanted.items()) or _other_devices(shape, held)


def _other_devices(shape: Json, held: list[Any]) -> bool:
    """Whether functions of another kind are asked for than are held: the card itself, or virtual ones."""
    physical = any(address.endswith(":00.0") for one in held for address in one.devices)
    had = {"pf": physical, "vf": not physical}
    return any(one.devices for one in held) and any(
        not had.get(request["type"], True) for request in shape.get("devices", [])
    )


def _devices_free(inventory: Json, policy: Json, request: Json, others: Json, *, observed: bool) -> bool:
    free = [
        device
        for address, device in offered(inventory, policy, observed=observed).items()
        if device.get("type", "pci") == request["type"]
        and address not in others["devices"]
        and not kin(inventory, address) & others["devices"]
    ]
    return len(free) >= int(request["count"])
