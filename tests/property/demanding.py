"""Big nodes, and claims made to be hard to decide: drawn at random, and changed a little at a time."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID

from schemas import MAX_BODY_BYTES, Claim
from schemas.inventory import Inventory
from schemas.policy import Policy
from worker.accounting.host.compiled import Host, build_host
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Node, View

Claimed = dict[str, Any]

PRODUCTS = ("0001", "0002", "0003")
KINDS: tuple[str | None, ...] = (None, None, "pci", "pf", "vf", "vdpa", "mdev")
AFFINITIES = ("required", "legacy", "preferred", "socket")
PAGE_SIZES = (None, None, "small", "large", "any", 2048, 1048576, 16384)
MDEV_TYPES = tuple(f"t{number}" for number in range(10))
SOMEBODY = UUID(int=1)


def cells(rng: random.Random, count: int, width: int) -> list[dict[str, Any]]:
    """Unequal cells of some ``width`` CPUs on cores of two threads, with pages of four sizes."""
    found, first = [], 0
    for number in range(count):
        cores = max(1, width // 2 - rng.randint(0, 2))
        memory = 16384 + 1024 * rng.randint(0, 16)
        found.append(
            {
                "id": number,
                "socket": number // 2,
                "cpus": f"{first}-{first + 2 * cores - 1}",
                "siblings": [f"{first + core},{first + core + cores}" for core in range(cores)],
                "memory_mib": memory,
                "pages": [
                    {"size_kib": 4, "total": memory * 128},
                    {"size_kib": 16384, "total": rng.randint(0, 64)},
                    {"size_kib": 2048, "total": rng.randint(0, memory // 4)},
                    {"size_kib": 1048576, "total": rng.randint(0, 4)},
                ],
                "physnets": rng.sample(["a", "b", "c", "d"], rng.randint(0, 3)),
                "tunneled": rng.random() < 0.5,
            }
        )
        first += 2 * cores
    return found


def cards(rng: random.Random, count: int, functions: Callable[[], int], where: int, kind: str) -> list[dict[str, Any]]:
    """Cards spread over cells: whole or by functions, with vDPA devices on those, or carrying mediated devices."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        address = f"0000:{number:02x}:00.0"
        common = {
            "vendor": "10de",
            "product": rng.choice(PRODUCTS),
            "cell": rng.choice([None, *range(where), *range(where)]) if where else None,
            "tags": {"slot": str(number % 7)} if rng.random() < 0.3 else {},
        }
        if kind == "mdev":
            types = {name: rng.randint(1, 16) for name in MDEV_TYPES}
            found.append({**common, "address": address, "type": "mdev", "mdev_types": types})
            continue
        if kind == "pci":
            found.append({**common, "address": address})
            continue
        found.append({**common, "address": address, "type": "pf"})
        for function in range(functions()):
            below = f"0000:{number:02x}:{1 + function // 8:02x}.{function % 8}"
            found.append({**common, "address": below, "type": "vf", "parent": address})
            if kind == "vdpa":
                found.append({**common, "address": f"vdpa-{number}-{function}", "type": "vdpa", "parent": below})
    return found


def node(seed: int, count: int, width: int, devices: list[dict[str, Any]]) -> tuple[Host, Occupancy]:
    """A node with some of its CPUs and devices taken."""
    rng = random.Random(seed)
    layout = cells(rng, count, width)
    inventory = {
        "cpus": f"0-{max(1, count) * width - 1}",
        "memory_mib": 2**24,
        "disk_gib": 1000,
        "cells": layout,
        "devices": devices,
        "custom": {f"CUSTOM_R{number}": 4 for number in range(64)},
    }
    policy = {"shared_cpus": "0-1", "dedicated_cpus": f"2-{max(1, count) * width - 1}"}
    here = build_host(
        Inventory.model_validate_json(json.dumps(inventory)), Policy.model_validate(policy), observed=False
    )
    held = {device["address"]: SOMEBODY for device in devices if rng.random() < 0.04}
    pinned = {cpu: SOMEBODY for cpu in range(2, count * width) if rng.random() < 0.15}
    return here, Occupancy({}, pinned, held)


@cache
def nodes() -> dict[str, tuple[Host, Occupancy]]:
    """Ten nodes, each hard in another way."""
    rng = random.Random(1)
    return {
        "eight cards of 64 functions": node(1, 8, 16, cards(rng, 8, lambda: 64, 8, "vf")),
        "16 unequal cards": node(2, 4, 16, cards(rng, 16, lambda: rng.randint(1, 12), 4, "vf")),
        "128 cards": node(3, 2, 64, cards(rng, 128, lambda: rng.randint(1, 4), 2, "vf")),
        "mediated": node(4, 2, 32, cards(rng, 16, lambda: 0, 2, "mdev")),
        "many mediated": node(5, 8, 16, cards(rng, 96, lambda: 0, 8, "mdev")),
        "vdpa": node(6, 4, 16, cards(rng, 8, lambda: rng.randint(1, 16), 4, "vdpa")),
        "whole cards": node(7, 8, 16, cards(rng, 256, lambda: 0, 8, "pci")),
        "no cells": node(8, 0, 64, cards(rng, 16, lambda: rng.randint(1, 9), 0, "vf")),
        "32 cells": node(9, 32, 8, cards(rng, 32, lambda: 2, 32, "vf")),
        "64 cells": node(10, 64, 16, cards(rng, 64, lambda: 0, 64, "pci")),
    }


def view() -> View:
    """All those nodes, under the names n0, n1 and so on."""
    found = {}
    for number, (here, occupancy) in enumerate(nodes().values()):
        found[f"n{number}"] = Node(f"n{number}", Policy(), occupancy, host=here)
    return View(nodes=found)


def match(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rng.random() < 0.4:
        found["product"] = rng.choice(PRODUCTS)
    if rng.random() < 0.2:
        found["tags"] = {"slot": str(rng.randint(0, 7))}
    if rng.random() < 0.3:
        found["address"] = rng.choice(
            [
                f"0000:{rng.randint(0, 127):02x}:00.0",
                f"*:{rng.randint(0, 99):02x}:*",
                f"0000:?{rng.randint(0, 15):x}:*",
                f"*{rng.randint(0, 7)}",
                "*" * rng.randint(1, 8) + "0?" * rng.randint(0, 8),
            ]
        )
    return found


def device(rng: random.Random, number: int) -> dict[str, Any]:
    kind = rng.choice(KINDS)
    matches = [match(rng) for _ in range(rng.choice([1, 1, 1, 2, 4, 16]))]
    if kind == "mdev":
        for one in matches:
            one["mdev_type"] = rng.choice(MDEV_TYPES)
    count = rng.choice([1, 1, 2, 4, rng.randint(1, 64)])
    return {"name": f"d{number}", "count": count, "match": matches, "type": kind, "affinity": rng.choice(AFFINITIES)}


def topology(rng: random.Random) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """A topology, and the resources that agree with it."""
    count = rng.choice([1, 1, 2, 3, 4, 8, 16, 32])
    policy = rng.choice([None, "shared", "dedicated", "dedicated"])
    widths = [rng.randint(1, 8) for _ in range(count)]
    memory = [256 * rng.randint(1, 32) for _ in range(count)]
    resources: dict[str, Any] = {"vcpus": sum(widths), "memory_mib": sum(memory)}
    if rng.random() < 0.1:
        resources["custom"] = {f"CUSTOM_R{number}": rng.randint(1, 9) for number in range(rng.randint(1, 64))}
    if policy is None:
        return None, resources
    found: dict[str, Any] = {"cpu_policy": policy, "page_size": rng.choice(PAGE_SIZES)}
    first = 0
    found["cells"] = []
    for width, mib in zip(widths, memory, strict=True):
        found["cells"].append({"vcpus": f"{first}-{first + width - 1}", "memory_mib": mib})
        first += width
    if policy == "dedicated":
        found["thread_policy"] = rng.choice([None, "prefer", "isolate", "require"])
        found["emulator_threads"] = rng.choice([None, "share", "isolate"])
    if rng.random() < 0.4:
        found["networks"] = {"physnets": rng.sample(["a", "b", "c", "d"], rng.randint(0, 4)), "tunneled": True}
    return found, resources


def wished(rng: random.Random) -> dict[str, Any]:
    found, resources = topology(rng)
    devices = [device(rng, number) for number in range(rng.choice([0, 0, 1, 1, 2, 3, 4, 8, 16]))]
    return {"topology": found, "resources": resources, "devices": devices}


def claim(rng: random.Random) -> Claimed:
    """A claim for one, on one node or several, or for several."""
    names = [f"n{number}" for number in range(len(nodes()))]
    base = {"version": 1, "id": str(SOMEBODY), "kind": "claim", "issued_at": "2026-11-22T00:00:00Z", "project": "p"}
    kind = rng.choice(["one", "one", "one", "candidates", "gang"])
    if kind == "gang":
        where = rng.choice(names)
        members = [
            {"instance": str(UUID(int=number + 9)), "node": rng.choice([where, where, *names]), **wished(rng)}
            for number in range(rng.choice([2, 4, 16]))
        ]
        return {**base, "node": members[0]["node"], "instances": members}
    more = {"candidates": rng.sample(names, len(names))} if kind == "candidates" else {}
    return {**base, "node": rng.choice(names), "instance": str(UUID(int=8)), **more, **wished(rng)}


def changed(rng: random.Random, before: Claimed) -> Claimed:
    """The claim with a few things different."""
    after = copy.deepcopy(before)
    for _ in range(rng.choice([1, 1, 2, 4])):
        part = rng.choice(after.get("instances", [after]))
        rng.choice([_more_devices, _fewer_devices, _other_device, _other_place, _wider])(rng, after, part)
        del part["devices"][256:]
        for number, one in enumerate(part["devices"]):
            one["name"] = f"d{number}"
    if "instances" in after:
        after["node"] = after["instances"][0]["node"]
    return after


def _more_devices(rng: random.Random, _whole: Claimed, part: Claimed) -> None:
    if part["devices"] and rng.random() < 0.5:
        part["devices"].append(copy.deepcopy(rng.choice(part["devices"])))
    else:
        part["devices"] += [device(rng, 0) for _ in range(rng.choice([1, 1, 4, 16]))]


def _fewer_devices(rng: random.Random, _whole: Claimed, part: Claimed) -> None:
    if part["devices"]:
        part["devices"].pop(rng.randrange(len(part["devices"])))


def _other_device(rng: random.Random, _whole: Claimed, part: Claimed) -> None:
    if not part["devices"]:
        return
    one = rng.choice(part["devices"])
    if rng.random() < 0.5:
        one["count"] = rng.randint(1, 256)
    else:
        one["match"] = (one["match"] + [match(rng) for _ in range(rng.choice([1, 8]))])[-64:]


def _other_place(rng: random.Random, _whole: Claimed, part: Claimed) -> None:
    if rng.random() < 0.5:
        part["topology"], part["resources"] = topology(rng)
    else:
        part["node"] = f"n{rng.randrange(len(nodes()))}"


def _wider(rng: random.Random, whole: Claimed, _part: Claimed) -> None:
    """One member more, or other candidates."""
    if "instances" not in whole:
        whole["candidates"] = [f"n{rng.randrange(len(nodes()))}" for _ in range(rng.randint(0, 12))]
    elif len(whole["instances"]) < 256:
        more = copy.deepcopy(rng.choice(whole["instances"]))
        whole["instances"].append({**more, "instance": str(UUID(int=9 + len(whole["instances"])))})


def parsed(document: Claimed) -> Claim | None:
    """The command, or None if no worker would take a message so long."""
    body = json.dumps(document)
    return Claim.model_validate_json(body) if len(body) <= MAX_BODY_BYTES else None
