"""Answers cases with the product's own code, in the words of the comparison."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any
from uuid import UUID

from schemas.commands import Shape
from schemas.cpuset import format_cpu_set, parse_cpu_set
from schemas.inventory import Inventory
from schemas.policy import Policy, Ratios, Reserved, ReservedPages
from worker.accounting.host.capacity import Capacity
from worker.accounting.host.compiled import Host, build_host
from worker.accounting.host.cpus import mask_of
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, Placement

Json = dict[str, Any]
OTHER = UUID(int=1)
PLENTY = Capacity(2**40, 0, 2**40)


def host_of(case: Json) -> Host:
    cells = case["cells"]
    inventory = Inventory.model_validate(
        {
            "cpus": format_cpu_set(cpu for cell in cells for cpu in [*cell["shared"], *cell["dedicated"]]),
            "memory_mib": sum(cell["memory_mib"] for cell in cells),
            "cells": [
                {
                    "id": cell["id"],
                    "socket": cell["socket"],
                    "cpus": format_cpu_set([*cell["shared"], *cell["dedicated"]]),
                    "siblings": [format_cpu_set(core) for core in cell["siblings"]],
                    "memory_mib": cell["memory_mib"],
                    "pages": [{"size_kib": p["size_kib"], "total": p["total"]} for p in cell["pages"]],
                    "physnets": cell["physnets"],
                    "tunneled": cell["tunneled"],
                }
                for cell in cells
            ],
            "devices": [{k: v for k, v in device.items() if k != "held"} for device in case["devices"]],
        }
    )
    reserved = [
        ReservedPages(cell=cell["id"], size_kib=p["size_kib"], count=p["reserved"])
        for cell in cells
        for p in cell["pages"]
    ]
    vcpus, memory = (Decimal(ratio) for ratio in case["ratios"])
    policy = Policy(
        ratios=Ratios(vcpus=vcpus, memory=memory),
        reserved=Reserved(pages=reserved),
        shared_cpus=None if case["legacy"] else format_cpu_set(cpu for cell in cells for cpu in cell["shared"]),
        dedicated_cpus=None if case["legacy"] else format_cpu_set(cpu for cell in cells for cpu in cell["dedicated"]),
        cell_strategy="pack" if case["pack"] else "spread",
    )
    host = build_host(inventory, policy, observed=False)
    if case["legacy"]:
        both = {cell["id"]: mask_of(cell["dedicated"]) for cell in cells}
        host = dataclasses.replace(
            host, cells=tuple(dataclasses.replace(cell, dedicated=both[cell.id]) for cell in host.cells)
        )
    # Nova's plain amounts are placement's business: here there is plenty of them.
    capacity = dict.fromkeys(host.capacity, PLENTY)
    return dataclasses.replace(
        host, capacity=capacity, ceiling={name: known.capacity for name, known in capacity.items()}
    )


def occupancy_of(case: Json) -> Occupancy:
    used: dict[str, int] = {}
    for cell in case["cells"]:
        used[f"cell/{cell['id']}/vcpus"] = cell["used_vcpus"]
        used[f"cell/{cell['id']}/memory_mib"] = cell["used_memory_mib"]
        for pages in cell["pages"]:
            used[f"cell/{cell['id']}/pages/{pages['size_kib']}"] = pages["used"]
    pinned = {cpu: OTHER for cell in case["cells"] for cpu in cell["pinned"]}
    return Occupancy(used, pinned, {d["address"]: OTHER for d in case["devices"] if d["held"]})


def answer(case: Json) -> Json:
    shape = Shape.model_validate(
        {
            "resources": {"vcpus": case["vcpus"], "memory_mib": case["memory_mib"]},
            "topology": case["topology"],
            "devices": [{"name": f"r{number}", **request} for number, request in enumerate(case["requests"])],
        }
    )
    result = place(host_of(case), occupancy_of(case), shape)
    if isinstance(result, Placement):
        return {"fit": accepted(case, result)}
    return {"fit": None, "codes": sorted({reason.code for reason in result})}


def accepted(case: Json, placement: Placement) -> Json:
    assignment: Any = placement.assignment
    after: Json = {}
    for cell in case["cells"]:
        name = f"cell/{cell['id']}/"
        after[str(cell["id"])] = {
            "vcpus": cell["used_vcpus"] + placement.charge.get(name + "vcpus", 0),
            "memory_mib": cell["used_memory_mib"] + placement.charge.get(name + "memory_mib", 0),
            "pinned": len(set(cell["pinned"]) | (placement.pins & set(cell["dedicated"]))),
            "pages": {
                str(p["size_kib"]): p["used"] + placement.charge.get(f"{name}pages/{p['size_kib']}", 0)
                for p in cell["pages"]
            },
        }
    where = {device["address"]: device["cell"] for device in case["devices"]}
    isolate = case["topology"].get("emulator_threads") == "isolate"
    return {
        "cells": [
            {
                "cell": cell["host_cell"],
                "page_size_kib": cell["page_size_kib"],
                "pins": list(cell["pins"].values()),
                "reserved": sorted(parse_cpu_set(cell["emulator_cpus"])) if isolate else [],
            }
            for cell in assignment["cells"]
        ],
        "usage": after,
        "pinned": sorted(placement.pins),
        "devices": [
            [where[d["address"]] for d in assignment["devices"] if d["name"] == f"r{number}"]
            for number in range(len(case["requests"]))
        ],
        "addresses": [d["address"] for d in assignment["devices"]],
    }
