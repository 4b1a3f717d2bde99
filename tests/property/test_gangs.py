"""Members of one claim on one node find room exactly where there is a way for all, whatever their order."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import permutations, product
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from schemas import Claim
from schemas.policy import Policy
from tests.unit.accounting.builders import host
from worker.accounting.decide import decide
from worker.accounting.host.compiled import Host
from worker.accounting.rules.decision import Decision
from worker.accounting.state.occupancy import Occupancy, Placement, beside
from worker.accounting.state.view import Node, View

Json = dict[str, Any]
MORE = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
NOW = datetime(2026, 11, 22, tzinfo=UTC)
CORES = 4
HUGE_KIB = 524288


@st.composite
def cells(draw: st.DrawFn, threads: int, *, pages: bool) -> list[Json]:
    """Two or three cells of up to four cores, some of their CPUs taken; some of their memory huge pages."""
    found: list[Json] = []
    for number in range(draw(st.integers(1, 3))):
        first = number * CORES * threads
        cores = [
            [first + core + CORES * thread for thread in range(threads)] for core in range(draw(st.integers(1, CORES)))
        ]
        cpus = [cpu for core in cores for cpu in core]
        small, huge = draw(st.integers(1, 6)), draw(st.integers(0, 3)) if pages else 0
        sizes = [{"size_kib": 4, "total": 131072 * small}, {"size_kib": HUGE_KIB, "total": huge}]
        found.append(
            {
                "id": number,
                "cpus": ",".join(map(str, cpus)),
                "siblings": [",".join(map(str, core)) for core in cores],
                "memory_mib": 512 * (small + huge),
                "pages": sizes if pages else [],
                "taken": draw(st.sets(st.sampled_from(cpus), max_size=2)),
            }
        )
    return found


@st.composite
def members(draw: st.DrawFn, threads: int, devices: int, *, pages: bool) -> list[Json]:
    found: list[Json] = []
    for _ in range(draw(st.integers(2, 4))):
        count = draw(st.sampled_from([1, 1, 1, 2]))
        topology: Json = {"cpu_policy": "dedicated", "cells": count}
        topology["thread_policy"] = draw(st.sampled_from([None, "require"])) if threads == 2 else None
        topology["page_size"] = draw(st.sampled_from([None, "large", "any", HUGE_KIB])) if pages else None
        wants: list[Json] = []
        if devices:
            made = draw(st.sampled_from([None, "0001", "0002"]))
            wants = [
                {
                    "name": "d",
                    "count": draw(st.integers(1, 2)),
                    "match": [{} if made is None else {"product": made}],
                    "affinity": draw(st.sampled_from(["required", "preferred"])),
                }
            ] * draw(st.integers(0, 1))
        amounts = {"vcpus": count * draw(st.integers(1, 4)), "memory_mib": 512 * count * draw(st.integers(1, 2))}
        found.append({"resources": amounts, "topology": topology, "devices": wants})
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Json], list[Json], list[Json]]:
    threads, pages = draw(st.sampled_from([1, 2])), draw(st.booleans())
    layout = draw(cells(threads, pages=pages))
    devices = [
        {
            "address": f"0000:0{number}:00.0",
            "vendor": "10de",
            "product": draw(st.sampled_from(["0001", "0002"])),
            "cell": draw(st.integers(0, len(layout) - 1)),
        }
        for number in range(draw(st.sampled_from([0, 0, 2, 4])))
    ]
    return layout, devices, draw(members(threads, len(devices), pages=pages))


def there(layout: list[Json], devices: list[Json]) -> Host:
    inventory = [{name: value for name, value in cell.items() if name != "taken"} for cell in layout]
    cpus = ",".join(cell["cpus"] for cell in layout)
    return host(
        {"dedicated_cpus": "0-63"},
        cpus=cpus,
        memory_mib=sum(cell["memory_mib"] for cell in layout),
        cells=inventory,
        devices=devices,
    )


def ways(member: Json, layout: list[Json]) -> list[list[tuple[int, int]]]:
    """Each way to give a member's cells host cells, and huge pages or not."""
    count, size = member["topology"]["cells"], member["topology"]["page_size"]
    stores = {None: [4], "large": [HUGE_KIB], "any": [HUGE_KIB, 4], HUGE_KIB: [HUGE_KIB]}[size]
    return [
        list(zip(where, chosen, strict=True))
        for where in permutations(range(len(layout)), count)
        for chosen in product(stores, repeat=count)
    ]


def cell_holds(cell: Json, guests: list[tuple[Json, int]]) -> bool:
    """Whether a host cell has the CPUs, whole cores and memory for the guest cells on it."""
    free = [[cpu for cpu in map(int, core.split(",")) if cpu not in cell["taken"]] for core in cell["siblings"]]
    pairs = sum(len(core) == 2 for core in free)
    wanted = [(member, member["resources"]["vcpus"] // member["topology"]["cells"]) for member, _ in guests]
    whole = sum(-(-cpus // 2) for member, cpus in wanted if member["topology"]["thread_policy"] == "require")
    need = {4: 0, HUGE_KIB: 0}
    for member, store in guests:
        need[store] += member["resources"]["memory_mib"] // member["topology"]["cells"]
    sizes = {pages["size_kib"]: pages["size_kib"] * pages["total"] // 1024 for pages in cell["pages"]}
    have = sizes or {4: cell["memory_mib"], HUGE_KIB: 0}
    return (
        whole <= pairs
        and sum(cpus for _, cpus in wanted) <= sum(map(len, free))
        and all(need[size] <= have[size] for size in need)
    )


def devices_found(devices: list[Json], wants: list[tuple[Json, set[int]]]) -> bool:
    """Whether each request can have its devices, on the cells it is bound to."""
    units = [
        {
            device["address"]
            for device in devices
            if request["match"][0].get("product") in {None, device["product"]}
            and (request["affinity"] == "preferred" or device["cell"] in near)
        }
        for request, near in wants
        for _ in range(request["count"])
    ]

    def given_out(position: int, gone: frozenset[str]) -> bool:
        return position == len(units) or any(given_out(position + 1, gone | {one}) for one in units[position] - gone)

    return given_out(0, frozenset())


def possible(layout: list[Json], devices: list[Json], group: list[Json]) -> bool:
    """By trying every way."""
    for chosen in product(*[ways(member, layout) for member in group]):
        on: list[list[tuple[Json, int]]] = [[] for _ in layout]
        for member, places in zip(group, chosen, strict=True):
            for where, store in places:
                on[where].append((member, store))
        wants = [
            (request, {where for where, _ in places})
            for member, places in zip(group, chosen, strict=True)
            for request in member["devices"]
        ]
        if all(map(cell_holds, layout, on)) and devices_found(devices, wants):
            return True
    return False


def decided(here: Host, occupancy: Occupancy, group: list[Json]) -> Decision:
    node = Node("n", Policy(), occupancy, host=here)
    named = [{**member, "instance": str(UUID(int=9 + number)), "node": "n"} for number, member in enumerate(group)]
    head = {"version": 1, "id": str(UUID(int=1)), "issued_at": NOW.isoformat(), "kind": "claim"}
    command = {**head, "node": "n", "project": "p", "instances": named}
    decision = decide(View(nodes={"n": node}), Claim.model_validate_json(json.dumps(command)), NOW)
    assert isinstance(decision, Decision)
    return decision


def occupied(layout: list[Json]) -> Occupancy:
    taken = {cpu: UUID(int=2) for cell in layout for cpu in cell["taken"]}
    return Occupancy({"pcpus": len(taken)}, taken)


def check_disjoint(layout: list[Json], here: Host, decision: Decision) -> None:
    """What was given is there, and nothing of it twice."""
    occupancy = occupied(layout)
    for instance in decision.instances:
        placement: Placement = instance.holdings[0].placement
        assert not placement.pins & occupancy.pinned.keys()
        assert not set(placement.devices) & occupancy.held.keys()
        occupancy = beside(occupancy, instance.id, placement)
    limits = {cell.memory_counter: cell.memory_mib for cell in here.cells}
    limits |= {pages.counter: pages.total for cell in here.cells for pages in cell.pages}
    assert all(amount <= limits.get(name, amount) for name, amount in occupancy.used.items())
    assert all(amount <= here.ceiling.get(name, amount) for name, amount in occupancy.used.items())


@MORE
@given(cases())
def test_a_group_is_placed_if_there_is_any_way_to_and_only_then(
    case: tuple[list[Json], list[Json], list[Json]],
) -> None:
    layout, devices, group = case
    here = there(layout, devices)
    decision = decided(here, occupied(layout), group)
    expected = possible(layout, devices, group)
    event(f"possible: {expected}")
    assert (decision.status == "applied") == expected, [reason.detail for reason in decision.reasons]
    check_disjoint(layout, here, decision)
    assert all(reason.instance is not None for reason in decision.reasons)
    turned = decided(here, occupied(layout), group[::-1])
    assert turned.status == decision.status
