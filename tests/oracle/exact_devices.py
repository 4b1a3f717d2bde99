"""Device assignment by trying everything: slow, short, and with nothing in common with the product's code.

Used on both sides of the comparison, so that Nova's device test can be put
right where it is known to be wrong. Imports nothing.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def related(devices: list[Json]) -> dict[str, set[str]]:
    """For each address, the addresses that cannot be used beside it."""
    parents = {device["address"]: device["parent"] for device in devices}

    def above(address: str) -> set[str]:
        found = set()
        parent = parents.get(address)
        while parent is not None:
            found.add(parent)
            parent = parents.get(parent)
        return found

    return {a: {b for b in parents if a != b and (a in above(b) or b in above(a))} for a in parents}


def free_devices(devices: list[Json]) -> list[Json]:
    """Devices that are not held and that no held device excludes."""
    excluded = related(devices)
    held = {device["address"] for device in devices if device["held"]}
    return [d for d in devices if d["address"] not in held and not excluded[d["address"]] & held]


def accepts(request: Json, device: Json) -> bool:
    """Whether a device is one of those that a request wants, wherever it is."""
    if request["type"] is None:
        if device["type"] in {"pf", "vdpa"}:
            return False
    elif device["type"] != request["type"]:
        return False
    if request["live_migratable"] is not None and device["live_migratable"] is not request["live_migratable"]:
        return False
    return any(
        all(match.get(key) in {None, device[key]} for key in ("vendor", "product"))
        and match.get("tags", {}).items() <= device["tags"].items()
        for match in request["match"]
    )


def near(request: Json, device: Json, chosen: list[int], cells: list[Json]) -> bool:
    """Whether a request's affinity allows the device for a guest on the host cells ``chosen``."""
    affinity, cell = request["affinity"], device["cell"]
    if affinity == "preferred" or cell in chosen or (affinity == "legacy" and cell is None):
        return True
    if affinity != "socket" or any(c["socket"] is None for c in cells):
        return False
    sockets = {c["socket"] for c in cells if c["id"] in chosen}
    return cell in {c["id"] for c in cells if c["socket"] in sockets}


def possible(devices: list[Json], requests: list[Json], chosen: list[int] | None, cells: list[Json]) -> bool:
    """Whether all requests can have their devices at once. ``chosen`` is None for a guest without cells."""
    excluded = related(devices)
    free = free_devices(devices)
    units = [
        {d["address"] for d in free if accepts(r, d) and (chosen is None or near(r, d, chosen, cells))}
        for r in requests
        for _ in range(r["count"])
    ]

    def assign(position: int, banned: frozenset[str]) -> bool:
        if position == len(units):
            return True
        return any(
            assign(position + 1, banned | {address} | excluded[address]) for address in sorted(units[position] - banned)
        )

    return assign(0, frozenset())


def assignable(supply: list[tuple[str, str, int]], wants: list[tuple[str, str | None, int]]) -> bool:
    """Whether amounts of (kind, product) serve requests for (kind, product or None for any).

    By Hall's condition: all requests together must find enough, and so must those for any one product alone.
    """
    for kind in {kind for kind, _, _ in wants}:
        there = [(made, units) for other, made, units in supply if other == kind]
        asked = [(made, units) for other, made, units in wants if other == kind]
        if sum(units for _, units in there) < sum(units for _, units in asked):
            return False
        for one in {made for made, _ in asked if made is not None}:
            if sum(units for made, units in there if made == one) < sum(units for made, units in asked if made == one):
                return False
    return True
