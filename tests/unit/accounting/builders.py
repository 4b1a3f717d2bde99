"""Small hosts and requests, said shortly."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from schemas.commands import Shape
from schemas.inventory import Inventory
from schemas.outcomes import Reason
from schemas.policy import Policy
from worker.accounting.host.compiled import Host, build_host
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, Placement, beside, merged

SOMEONE = UUID(int=1)
NOBODY = Occupancy()


def host(policy: dict[str, Any] | None = None, *, observed: bool = False, **inventory: Any) -> Host:
    inventory = {"cpus": "0-7", "memory_mib": 16384, "disk_gib": 100, **inventory}
    settings = {"reserved": {"memory_mib": 0}, **(policy or {})}
    return build_host(
        Inventory.model_validate_json(json.dumps(inventory)),
        Policy.model_validate_json(json.dumps(settings)),
        observed=observed,
    )


def cell(number: int, cpus: str, siblings: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": number, "cpus": cpus, "siblings": siblings or [], "memory_mib": 8192, **more}


def two_cells(policy: dict[str, Any] | None = None, *, pages: list[dict[str, int]] | None = None, **more: Any) -> Host:
    """Two cells of four CPUs on two cores each, all dedicated unless the policy says otherwise."""
    cells = [
        cell(0, "0-3", ["0,2", "1,3"], socket=0, pages=pages or []),
        cell(1, "4-7", ["4,6", "5,7"], socket=0, pages=pages or []),
    ]
    return host({"dedicated_cpus": "0-7", **(policy or {})}, cells=cells, **more)


def shape(vcpus: int = 1, memory_mib: int = 1024, **more: Any) -> Shape:
    resources = {"vcpus": vcpus, "memory_mib": memory_mib, **more.pop("resources", {})}
    return Shape.model_validate({"resources": resources, **more})


def pinned(vcpus: int = 1, memory_mib: int = 1024, **topology: Any) -> Shape:
    more = {"devices": topology.pop("devices", [])}
    return shape(vcpus, memory_mib, topology={"cpu_policy": "dedicated", **topology}, **more)


def wanted(name: str = "gpu", **request: Any) -> dict[str, Any]:
    return {"name": name, "match": [{}], **request}


def pci(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "vendor": "10de", "product": "1db6", **more}


def placed(result: Placement | list[Reason]) -> Placement:
    assert isinstance(result, Placement), [reason.detail for reason in result]
    return result


def refused(result: Placement | list[Reason]) -> list[Reason]:
    assert isinstance(result, list), result.assignment
    return result


def codes(result: Placement | list[Reason]) -> list[str]:
    return [reason.code for reason in refused(result)]


def cells_of(placement: Placement) -> list[Any]:
    cells: Any = placement.assignment["cells"]
    return list(cells)


def host_cells_of(placement: Placement) -> list[int]:
    return [cell["host_cell"] for cell in cells_of(placement)]


def pins_of(placement: Placement) -> list[list[int]]:
    return [list(cell["pins"].values()) for cell in cells_of(placement)]


def fill(here: Host, occupancy: Occupancy, *shapes: Shape) -> Occupancy:
    """The state after each of the requests was placed for someone of its own."""
    for number, wish in enumerate(shapes):
        occupancy = beside(occupancy, UUID(int=100 + number), placed(place(here, occupancy, wish)))
    return occupancy


def again(here: Host, occupancy: Occupancy, before: Placement, wish: Shape) -> Placement | list[Reason]:
    """A new size for the holder of ``before``, which is part of ``occupancy``."""
    return place(here, occupancy.without([before]), wish, own=merged([before]), held=[before])
