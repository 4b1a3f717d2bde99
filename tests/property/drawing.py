"""Random small hosts, policies and requests, as JSON-ready values."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PAGE_SIZES = (4, 2048)


@st.composite
def inventories(draw: st.DrawFn, *, roomy: bool = False) -> dict[str, Any]:
    """Up to four cells of up to four cores of one, two or four threads, some of them offline; up to six devices.

    A ``roomy`` host has a cell at least, two to eight cores in each, and 4 GiB more.
    """
    counts, gib = (st.integers(2, 8), st.integers(5, 12)) if roomy else (st.integers(0, 4), st.integers(1, 8))
    threads = draw(st.sampled_from([1, 2, 2, 4]))
    cells, first = [], 0
    for number in range(draw(st.integers(int(roomy), 4))):
        cores, memory = draw(counts), 1024 * draw(gib)
        cells.append(
            {
                "id": number * 2,
                "socket": draw(st.sampled_from([None, 0, 1])),
                "cpus": f"{first}-{first + cores * threads - 1}" if cores else "",
                "siblings": [
                    ",".join(str(first + core + cores * thread) for thread in range(threads)) for core in range(cores)
                ],
                "caches": draw(caches(first, cores, threads)),
                "memory_mib": memory,
                "pages": [{"size_kib": size, "total": memory * 512 // size} for size in PAGE_SIZES],
                "physnets": draw(st.lists(st.sampled_from(["a", "b"]), unique=True)),
            }
        )
        first += cores * threads
    cpus = max(first, 4)
    offline = draw(st.sets(st.integers(0, cpus - 1), max_size=2))
    return {
        "cpus": ",".join(str(cpu) for cpu in range(cpus) if cpu not in offline),
        "memory_mib": sum(cell["memory_mib"] for cell in cells) or 8192,
        "disk_gib": 100,
        "cells": cells,
        "devices": draw(devices(len(cells))),
        "custom": {"CUSTOM_A": draw(st.integers(0, 3))},
    }


@st.composite
def caches(draw: st.DrawFn, first: int, cores: int, threads: int) -> list[str]:
    """None, or caches of some cores each, perhaps not of all cores."""
    each = draw(st.sampled_from([0, 0, 1, 2, 3]))
    groups = [range(at, min(cores, at + each)) for at in range(0, cores, each)] if each else []
    return [
        ",".join(str(first + core + cores * thread) for core in group for thread in range(threads))
        for group in groups[: draw(st.sampled_from([16, 16, 1]))]
    ]


@st.composite
def devices(draw: st.DrawFn, cells: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    where = st.sampled_from([None, *(number * 2 for number in range(cells))])
    for card in range(draw(st.integers(0, 3))):
        common = {"vendor": "10de", "product": draw(st.sampled_from(["0001", "0002"])), "cell": draw(where)}
        kind = draw(st.sampled_from(["pci", "pf", "mdev"]))
        address = f"0000:0{card}:00.0"
        if kind == "mdev":
            found.append({**common, "address": address, "mdev_types": {"t1": 2, "t2": draw(st.integers(0, 1))}})
            continue
        found.append({**common, "address": address, "type": kind})
        found += [
            {**common, "address": f"0000:0{card}:00.{number + 1}", "type": "vf", "parent": address}
            for number in range(draw(st.integers(0, 2)) if kind == "pf" else 0)
        ]
    return found


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    cut = draw(st.integers(0, 6))
    sets = draw(
        st.sampled_from(
            [{}, {"dedicated_cpus": "0-63"}, {"shared_cpus": f"0-{cut}", "dedicated_cpus": f"{cut + 1}-63"}]
        )
    )
    ratios = {"vcpus": draw(st.sampled_from(["1.0", "2.5"])), "memory": draw(st.sampled_from(["1.0", "1.5"]))}
    reserved = {"memory_mib": draw(st.integers(0, 512)), "pages": [{"cell": 0, "size_kib": 2048, "count": 16}]}
    return {
        **sets,
        "ratios": ratios,
        "reserved": reserved,
        "cell_strategy": draw(st.sampled_from(["spread", "pack"])),
        "overhead": {"memory_mib_per_vcpu": draw(st.sampled_from([0, 7]))},
    }


def resized(request: dict[str, Any], vcpus: int, memory_mib: int) -> dict[str, Any]:
    """The same request with so many vCPUs and so much memory for each of its cells."""
    topology = request["topology"] and dict(request["topology"])
    cells = (topology and topology["cells"]) or 1
    if topology and topology["cpu_policy"] == "mixed":
        vcpus = max(vcpus, 2)
        topology["dedicated_vcpus"] = f"1-{vcpus - 1}"
    resources = {**request["resources"], "vcpus": cells * vcpus, "memory_mib": cells * memory_mib}
    return {**request, "resources": resources, "topology": topology}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    cells = draw(st.integers(1, 3))
    vcpus, memory = cells * draw(st.integers(1, 3)), cells * 256 * draw(st.integers(1, 6))
    policy = draw(st.sampled_from([None, "shared", "dedicated", "dedicated", "mixed"]))
    topology: dict[str, Any] | None = None if policy is None else {"cpu_policy": policy}
    if topology is not None:
        topology["cells"] = draw(st.sampled_from([None, cells]))
        topology["page_size"] = draw(st.sampled_from([None, None, "small", "large", "any", 2048]))
        topology["networks"] = {"physnets": draw(st.lists(st.sampled_from(["a", "b"]), max_size=1))}
        if policy in {"dedicated", "mixed"}:
            topology["thread_policy"] = draw(st.sampled_from([None, "prefer", "require", "isolate"]))
            topology["emulator_threads"] = draw(st.sampled_from([None, "share", "isolate"]))
            topology["cache"] = draw(st.sampled_from([None, None, "prefer", "require"]))
        if policy == "mixed":
            vcpus = max(vcpus, 2)
            topology["cells"] = topology["cells"] and 1
            topology["dedicated_vcpus"] = f"1-{vcpus - 1}"
    wants = [
        {
            "name": f"d{number}",
            "count": draw(st.integers(1, 2)),
            "match": [{"product": product} if (product := draw(st.sampled_from([None, "0001"]))) else {}],
            "type": draw(st.sampled_from([None, "pci", "pf", "vf", "mdev"])),
            "affinity": draw(st.sampled_from(["required", "legacy", "preferred", "socket"])),
        }
        for number in range(draw(st.sampled_from([0, 0, 0, 1, 2])))
    ]
    return {
        "resources": {"vcpus": vcpus, "memory_mib": memory, "custom": draw(st.sampled_from([{}, {"CUSTOM_A": 1}]))},
        "topology": topology,
        "devices": wants,
    }


@st.composite
def changing_hosts(draw: st.DrawFn) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """One small host in three states: its CPUs dedicated and shared in other ways, its threads on or off."""
    cells = draw(st.integers(1, 2))
    pages = draw(st.booleans())

    def state() -> tuple[dict[str, Any], dict[str, Any]]:
        threads = draw(st.sampled_from([True, True, True, False]))
        caches_of_cell = [draw(caches(cell * 6, 3, 2)) for cell in range(cells)]
        inventory = {
            "cpus": f"0-{cells * 6 - 1}",
            "memory_mib": cells * 2048,
            "cells": [
                {
                    "id": cell,
                    "cpus": f"{cell * 6}-{cell * 6 + 5}",
                    "siblings": [f"{cell * 6 + core},{cell * 6 + core + 3}" for core in range(3)] if threads else [],
                    "caches": caches_of_cell[cell],
                    "memory_mib": 2048,
                    "pages": [{"size_kib": 4, "total": 524288}] if pages else [],
                }
                for cell in range(cells)
            ],
        }
        halves = ["0-2,6-8", "3-5,9-11"]
        sets = draw(
            st.sampled_from(
                [
                    {"dedicated_cpus": "0-11"},
                    {"shared_cpus": halves[0], "dedicated_cpus": halves[1]},
                    {"shared_cpus": halves[1], "dedicated_cpus": halves[0]},
                    {"shared_cpus": "0,6", "dedicated_cpus": "1-5,7-11"},
                    {"dedicated_cpus": "5"},
                    {},
                ]
            )
        )
        ratios = {"vcpus": "4.0", "memory": draw(st.sampled_from(["1.0", "2.0", "2.0"]))}
        return inventory, {**sets, "ratios": ratios, "reserved": {"memory_mib": 0}}

    return [state() for _ in range(3)]


@st.composite
def small_requests(draw: st.DrawFn) -> dict[str, Any]:
    """A guest on one or two cells that takes a good part of a small host, under any rule."""
    policy = draw(st.sampled_from(["shared", "shared", "dedicated", "mixed"]))
    cells = draw(st.sampled_from([1, 1, 1, 2])) if policy != "mixed" else 1
    vcpus = cells * draw(st.integers(2 if policy == "mixed" else 1, 4))
    topology: dict[str, Any] = {"cpu_policy": policy, "cells": cells}
    topology["page_size"] = draw(st.sampled_from([None, None, "small"]))
    if policy != "shared":
        topology["thread_policy"] = draw(st.sampled_from([None, "require", "require", "isolate"]))
        topology["cache"] = draw(st.sampled_from([None, None, None, "prefer", "require"]))
    if policy == "mixed":
        topology["dedicated_vcpus"] = f"1-{vcpus - 1}"
    resources = {"vcpus": vcpus, "memory_mib": cells * draw(st.sampled_from([512, 2048])), "custom": {}}
    return {"resources": resources, "topology": topology, "devices": []}
