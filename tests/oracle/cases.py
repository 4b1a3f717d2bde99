"""Random hosts, states and requests. A case is plain JSON, and depends on its seed alone."""

from __future__ import annotations

import random
from typing import Any

Json = dict[str, Any]
PAGE_SIZES = (4, 64, 2048, 16384, 1048576)


def case_of(seed: int, *, devices: bool) -> Json:
    """One case. Some hosts are roomy, the others have about as much free as is asked."""
    rng = random.Random(seed)
    roomy = rng.random() < (0.9 if devices else 0.35)
    hosts = rng.choices([1, 2, 3, 4, 5, 6, 8], [4, 10, 10, 8, 4, 2, 1])[0]
    guests = min(rng.choices([1, 2, 3, 4], [4, 4, 2, 1])[0], hosts + (rng.random() < 0.05))
    legacy = rng.random() < 0.25
    sizes = sorted(rng.sample(PAGE_SIZES, rng.choice([0, 1, 2, 2, 3]))) if rng.random() < 0.8 else []
    unit = rng.choice([64, 256, 1000, 1024])
    cells = _cells(rng, hosts, sizes, unit, legacy=legacy, roomy=roomy)
    flawed = rng.random() < (0.03 if devices else 0.1)
    vcpus, memory_mib, topology = _guest(rng, guests, sizes, unit, flawed=flawed)
    found = _devices(rng, cells) if devices else []
    requests = _requests(rng, found) if devices else []
    if devices and rng.random() < 0.25:
        topology = {}
    elif devices and rng.random() < 0.7:
        topology.pop("networks", None)
    return {
        "seed": seed, "cells": cells, "legacy": legacy, "pack": rng.random() < 0.4,
        "ratios": [rng.choice(["1.0", "1.5", "4.0", "16.0"]), rng.choice(["1.0", "1.0", "1.5", "0.75"])],
        "vcpus": vcpus, "memory_mib": memory_mib, "topology": topology, "devices": found, "requests": requests,
    }  # fmt: skip


def _cells(rng: random.Random, count: int, sizes: list[int], unit: int, *, legacy: bool, roomy: bool) -> list[Json]:
    threads = rng.choice([1, 2, 2, 2, 4, 8])
    numbers = sorted(rng.sample(range(count * 3), count)) if rng.random() < 0.2 else list(range(count))
    sockets = rng.choice([None, 1, 2])
    shuffled = rng.random() < 0.2
    cells = []
    first = 0
    for position, number in enumerate(numbers):
        cores = rng.choice([4, 6, 8]) if roomy else rng.choice([0, 1, 2, 2, 3, 4, 6])
        cpus = list(range(first, first + cores * threads))
        first += cores * threads
        siblings = [set(cpus[core::cores]) for core in range(cores)]
        if shuffled:
            rng.shuffle(siblings)
        offline = {cpu for cpu in cpus if rng.random() < 0.05}
        online = [cpu for cpu in cpus if cpu not in offline]
        share = rng.choice([0, 0.3, 0.5] if roomy else [0, 0, 0.3, 0.5, 1])
        shared = online if legacy else [cpu for cpu in online if rng.random() < share]
        dedicated = online if legacy else [cpu for cpu in online if cpu not in shared]
        taken = rng.choice([0, 0, 0.2] if roomy else [0, 0.2, 0.5, 0.8])
        memory = unit * rng.choice([8, 16] if roomy else [1, 2, 3, 4, 8])
        cells.append(
            {
                "id": number,
                "socket": None if sockets is None else position // sockets,
                "shared": shared,
                "dedicated": dedicated,
                "siblings": [sorted(core - offline) for core in siblings if core - offline],
                "pinned": [cpu for cpu in dedicated if rng.random() < taken],
                "memory_mib": memory,
                "used_memory_mib": rng.choice([0, 0, unit, memory // 2]),
                "used_vcpus": rng.choice([0, 0, 1, 2, len(shared)]),
                "pages": [_pages(rng, size, memory) for size in sizes if rng.random() < 0.95],
                "physnets": rng.sample(["a", "b", "c"], rng.choice([0, 0, 1, 2])),
                "tunneled": rng.random() < 0.3,
            }
        )
    return cells


def _pages(rng: random.Random, size: int, memory: int) -> Json:
    total = memory * 1024 // size // rng.choice([1, 1, 2])
    return {
        "size_kib": size,
        "total": total,
        "used": rng.choice([0, 0, total // 2, total // 4]),
        "reserved": rng.choice([0, 0, 0, total // 4]),
    }


def _guest(rng: random.Random, count: int, sizes: list[int], unit: int, *, flawed: bool) -> tuple[int, int, Json]:
    policy = rng.choices([None, "shared", "dedicated", "mixed"], [1, 2, 4, 3])[0]
    topology: Json = {} if policy is None else {"cpu_policy": policy}
    if rng.random() < 0.5:
        widths, memories = [rng.choice([1, 1, 2, 3, 4])] * count, [unit * rng.choice([1, 1, 2, 3])] * count
        if count > 1 or rng.random() < 0.5:
            topology["cells"] = count
    else:
        widths = [rng.choice([1, 1, 2, 3, 4]) for _ in range(count)]
        memories = [unit * rng.choice([1, 1, 2, 3]) for _ in range(count)]
        topology["cells"] = _explicit(rng, widths, memories)
    vcpus, memory_mib = sum(widths), sum(memories)
    topology |= _cpus(rng, policy, vcpus, flawed=flawed)
    if rng.random() < 0.5:
        topology["page_size"] = rng.choice(["small", "large", "any", *sizes])
    if rng.random() < 0.3:
        topology["networks"] = {
            "physnets": rng.sample(["a", "b", "c", "d"], rng.choice([0, 1, 1, 2])),
            "tunneled": rng.random() < 0.4,
        }
    if flawed:
        topology["locked_memory"] = rng.random() < 0.2
        vcpus += rng.random() < 0.2
        memory_mib += rng.random() < 0.2
    return vcpus, memory_mib, topology


def _cpus(rng: random.Random, policy: str | None, vcpus: int, *, flawed: bool) -> Json:
    pinned = policy in {"dedicated", "mixed"}
    chosen: Json = {}
    if rng.random() < (0.5 if pinned else 0.2 * flawed):
        chosen["thread_policy"] = rng.choice(["prefer", "isolate", "require"])
    if rng.random() < (0.35 if pinned else 0.3 * flawed):
        chosen["emulator_threads"] = rng.choice(["isolate", "isolate", "share"])
    if policy == "mixed" or rng.random() < 0.2 * flawed:
        most = vcpus if flawed else max(1, vcpus - 1)
        mask = sorted(rng.sample(range(vcpus), rng.randint(1, most)))
        chosen["dedicated_vcpus"] = ",".join(map(str, mask))
    if rng.random() < (0.2 if flawed else 0.03 * pinned):
        mask = rng.sample(range(vcpus + flawed), rng.randint(1, vcpus))
        chosen["realtime_vcpus"] = ",".join(map(str, mask))
        if rng.random() < 0.7:
            chosen.pop("dedicated_vcpus", None)
    return chosen


def _explicit(rng: random.Random, widths: list[int], memories: list[int]) -> list[Json]:
    vcpus = list(range(sum(widths)))
    if rng.random() < 0.5:
        rng.shuffle(vcpus)
    cells = []
    for width, memory in zip(widths, memories, strict=True):
        cells.append({"vcpus": ",".join(str(vcpus.pop()) for _ in range(width)), "memory_mib": memory})
    return cells


def _devices(rng: random.Random, cells: list[Json]) -> list[Json]:
    places = [None, *(cell["id"] for cell in cells), *(cell["id"] for cell in cells)]
    devices = []
    busy = rng.choice([0, 0.1, 0.3])
    for bus in range(rng.randint(1, 6)):
        cell = rng.choice(places)
        common = {"vendor": rng.choice(["8086", "8086", "10de"]), "live_migratable": None, "tags": {}, "cell": cell}
        if rng.random() < 0.25:
            common["tags"] = {"physical_network": rng.choice(["a", "b"])}
        if rng.random() < 0.2:
            common["live_migratable"] = rng.random() < 0.5
        parent = f"0000:{bus:02x}:00.0"
        kind = rng.choice(["pci", "pci", "pf"])
        product = rng.choice(["1001", "1002"])
        devices.append({**common, "address": parent, "type": kind, "parent": None, "product": product})
        if kind == "pf":
            below = rng.choice(["vf", "vf", "vdpa"])
            child_product = rng.choice(["1003", product])
            devices += [
                {
                    **common,
                    "address": f"0000:{bus:02x}:00.{n}",
                    "type": below,
                    "parent": parent,
                    "product": child_product,
                }
                for n in range(1, rng.randint(1, 3) + 1)
            ]
    held: set[str] = set()
    for device in devices:
        free = device["parent"] not in held and not any(
            d["parent"] == device["address"] and d["address"] in held for d in devices
        )
        device["held"] = free and rng.random() < busy
        if device["held"]:
            held.add(device["address"])
    return devices


def _requests(rng: random.Random, devices: list[Json]) -> list[Json]:
    requests = []
    for _ in range(rng.choice([1, 1, 2, 2, 3])):
        matches, kinds = [], []
        for _ in range(rng.choice([1, 1, 1, 2])):
            wanted = rng.choice(devices)
            match: Json = {key: wanted[key] for key in ("vendor", "product") if rng.random() < 0.4}
            kinds.append(rng.choice([None, None, wanted["type"]]))
            if rng.random() < 0.08:
                match["tags"] = {"physical_network": rng.choice(["a", "b"])}
            matches.append(match)
        requests.append(
            {
                "count": rng.choice([1, 1, 1, 1, 2, 3]),
                "match": matches,
                "type": rng.choice(kinds) if rng.random() < 0.95 else rng.choice(["pci", "pf", "vf", "vdpa"]),
                "affinity": rng.choice(["required", "legacy", "legacy", "preferred", "socket"]),
                "live_migratable": rng.choice([*[None] * 8, True, False]),
            }
        )
    return requests
