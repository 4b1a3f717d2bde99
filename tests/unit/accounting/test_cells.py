from __future__ import annotations

from typing import Any

import pytest

from schemas.requests import Disk
from tests.unit.accounting.builders import (
    NOBODY,
    SOMEONE,
    again,
    cell,
    cells_of,
    codes,
    fill,
    host,
    host_cells_of,
    pinned,
    pins_of,
    placed,
    refused,
    shape,
    two_cells,
)
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, beside

SMALL, LARGE = {"size_kib": 4, "total": 1048576}, {"size_kib": 2048, "total": 1024}


def test_a_guest_is_spread_to_the_emptiest_cell_or_packed_on_the_fullest() -> None:
    occupancy = Occupancy({"pcpus": 1, "cell/1/memory_mib": 1024}, {4: SOMEONE})
    assert host_cells_of(placed(place(two_cells(), occupancy, pinned()))) == [0]
    assert host_cells_of(placed(place(two_cells({"cell_strategy": "pack"}), occupancy, pinned()))) == [1]


def test_cells_are_taken_as_they_are_where_the_guest_takes_them_all() -> None:
    occupancy = Occupancy({"pcpus": 1}, {0: SOMEONE})
    assert host_cells_of(placed(place(two_cells(), occupancy, pinned(2, cells=2)))) == [0, 1]


def test_unlike_guest_cells_find_the_one_arrangement_there_is() -> None:
    cells = [cell(0, "0-2"), cell(1, "3-4"), cell(2, "5")]
    topology = {
        "cpu_policy": "dedicated",
        "cells": [
            {"vcpus": "0", "memory_mib": 1},
            {"vcpus": "1-2", "memory_mib": 1},
            {"vcpus": "3-5", "memory_mib": 1},
        ],
    }
    here = host({"dedicated_cpus": "0-7"}, cells=cells)
    assert host_cells_of(placed(place(here, NOBODY, shape(6, 3, topology=topology)))) == [2, 1, 0]


@pytest.mark.timeout(20)
def test_a_guest_that_fits_nowhere_is_refused_without_trying_every_arrangement() -> None:
    cells = [cell(number, str(number)) for number in range(48)]
    vcpus = 40
    topology = {
        "cpu_policy": "dedicated",
        "cells": [{"vcpus": str(v), "memory_mib": 8193 if v == vcpus - 1 else 1} for v in range(vcpus)],
    }
    here = host({"dedicated_cpus": "0-47"}, cpus="0-47", memory_mib=2**30, cells=cells)
    (reason,) = refused(place(here, NOBODY, shape(vcpus, 8193 + vcpus - 1, topology=topology)))
    assert (reason.code, reason.short_by) == ("no_numa_fit", 1)


@pytest.mark.timeout(20)
def test_networks_out_of_reach_are_refused_without_trying_every_arrangement() -> None:
    cells = [cell(number, str(number), physnets=[f"net{number}"]) for number in range(40)]
    here = host({"dedicated_cpus": "0-39"}, cpus="0-39", memory_mib=2**30, cells=cells)
    networks = {"physnets": [f"net{number}" for number in range(25, 36)]}
    assert codes(place(here, NOBODY, pinned(10, 1000, cells=10, networks=networks))) == ["no_numa_fit"]
    near = placed(place(here, NOBODY, pinned(11, 1100, cells=11, networks=networks)))
    assert sorted(host_cells_of(near)) == list(range(25, 36))


def test_a_guest_lies_near_its_networks_and_ignores_those_that_are_near_no_cell() -> None:
    cells = [cell(0, "0-3", physnets=["dc1"]), cell(1, "4-7", physnets=["dc2"], tunneled=True), cell(2, "8-11")]
    here = host({"dedicated_cpus": "0-11"}, cpus="0-11", cells=cells)

    def lie(**networks: Any) -> list[int]:
        return host_cells_of(placed(place(here, NOBODY, pinned(networks=networks))))

    assert lie(physnets=["dc2"]) == lie(tunneled=True) == [1]
    assert lie(physnets=["dc1", "elsewhere"]) == [0]
    (reason,) = refused(place(here, NOBODY, pinned(networks={"physnets": ["dc1", "dc2"]})))
    assert (reason.code, reason.resource) == ("no_numa_fit", "networks")


@pytest.mark.parametrize(
    ("wanted", "memory_mib", "size"),
    [
        ("small", 1024, 4),
        ("large", 1024, 2048),
        ("any", 1024, 2048),
        ("any", 1025, 4),
        (2048, 1024, 2048),
        ("any", 4096, 4),
    ],
)
def test_the_largest_page_size_that_serves_is_chosen(wanted: str | int, memory_mib: int, size: int) -> None:
    here = two_cells({"shared_cpus": "0-7", "dedicated_cpus": None}, pages=[SMALL, LARGE])
    placement = placed(place(here, NOBODY, shape(1, memory_mib, topology={"page_size": wanted})))
    (lying,) = cells_of(placement)
    assert lying["page_size_kib"] == size
    assert placement.charge[f"cell/{lying['host_cell']}/pages/{size}"] == memory_mib * 1024 // size


def test_reserved_and_used_pages_are_not_given() -> None:
    reserved = {"memory_mib": 0, "pages": [{"cell": 0, "size_kib": 2048, "count": 1}]}
    here = two_cells({"reserved": reserved}, pages=[SMALL, LARGE])
    topology = {"page_size": 2048}
    assert host_cells_of(placed(place(here, NOBODY, pinned(1, 2048, **topology)))) == [1]
    (reason,) = refused(place(here, Occupancy({"cell/1/pages/2048": 1000}), pinned(1, 2048, **topology)))
    assert reason.cells == [
        {
            "cell": 0,
            "lacks": [
                {
                    "guest_cells": "0", "resource": "pages", "requested": 1024, "free": 1023, "short_by": 1,
                    "page_size_kib": 2048,
                }
            ],
        },
        {
            "cell": 1,
            "lacks": [
                {
                    "guest_cells": "0", "resource": "pages", "requested": 1024, "free": 24, "short_by": 1000,
                    "page_size_kib": 2048,
                }
            ],
        },
    ]  # fmt: skip
    assert reason.detail == (
        "no room for 1 of 1 guest cells: cell 0 lacks 1 pages of 2048 KiB (1024 requested, 1023 free); "
        "cell 1 lacks 1000 pages of 2048 KiB (1024 requested, 24 free)"
    )


def test_pinned_memory_is_not_overcommitted_and_shared_memory_up_to_the_ratio_only() -> None:
    here = two_cells({"shared_cpus": "0-1,4-5", "dedicated_cpus": "2-3,6-7", "ratios": {"memory": "1.5"}})
    full = Occupancy({"cell/0/memory_mib": 8192, "cell/1/memory_mib": 8192})
    assert codes(place(here, full, pinned(1, 1))) == ["no_numa_fit"]
    placed(place(here, full, shape(1, 4096, topology={"cells": 1})))
    assert codes(place(here, full, shape(1, 4097, topology={"cells": 1}))) == ["no_numa_fit"]
    assert codes(place(here, NOBODY, shape(1, 8193, topology={"cells": 1}))) == ["no_numa_fit"]


def test_a_guest_does_not_overcommit_against_itself() -> None:
    here = two_cells({"shared_cpus": "0-7", "dedicated_cpus": None})
    placed(place(here, NOBODY, shape(4, topology={"cells": 1})))
    assert codes(place(here, NOBODY, shape(5, topology={"cells": 1}))) == ["no_numa_fit"]


def test_more_guest_cells_than_host_cells_are_refused() -> None:
    (reason,) = refused(place(two_cells(), NOBODY, pinned(3, 1023, cells=3)))
    assert (reason.code, reason.resource, reason.short_by) == ("no_numa_fit", "cells", 1)


def test_a_host_without_cells_pins_but_knows_no_cells_and_pages() -> None:
    here = host({"dedicated_cpus": "4-7"})
    assert pins_of(placed(place(here, NOBODY, pinned(2)))) == [[4, 5]]
    assert codes(place(here, NOBODY, pinned(2, cells=2))) == ["no_numa_fit"]
    assert codes(place(here, NOBODY, pinned(2, page_size="large"))) == ["no_numa_fit"]


def test_offline_cpus_and_memory_only_cells_take_no_vcpus() -> None:
    cells = [cell(0, "0-3", ["0,1", "2,3"]), cell(4, ""), cell(7, "4-7")]
    here = host({"dedicated_cpus": "0-7"}, cpus="0,2-3", cells=cells)
    assert pins_of(placed(place(here, NOBODY, pinned(3)))) == [[0, 2, 3]]
    assert "no_numa_fit" in codes(place(here, NOBODY, pinned(2, cells=2)))


def test_a_guest_that_is_resized_stays_on_its_cells_and_cpus() -> None:
    here = two_cells()
    occupancy = fill(here, NOBODY, pinned(2))
    before = placed(place(here, occupancy, pinned(2)))
    assert host_cells_of(before) == [1]
    occupancy = beside(occupancy, SOMEONE, before)
    larger = placed(again(here, occupancy, before, pinned(3)))
    assert host_cells_of(larger) == [1]
    assert pins_of(larger)[0][:2] == pins_of(before)[0]
    assert pins_of(placed(again(here, occupancy, before, pinned(1)))) == [pins_of(before)[0][:1]]


def test_a_guest_keeps_cpus_that_are_dedicated_no_more() -> None:
    before = placed(place(two_cells(), NOBODY, pinned(2)))
    narrower = two_cells({"dedicated_cpus": "7"})
    occupancy = beside(Occupancy({}, {7: SOMEONE}), SOMEONE, before)
    assert placed(again(narrower, occupancy, before, pinned(1))).pins < before.pins
    assert codes(again(narrower, occupancy, before, pinned(5))) == ["insufficient", "no_numa_fit"]


SMT = [cell(0, "0-3", ["0,1", "2,3"])]


@pytest.mark.parametrize("cells", [None, [{"vcpus": "0", "memory_mib": 512}, {"vcpus": "1-2", "memory_mib": 512}]])
@pytest.mark.parametrize("thread_policy", ["require", "prefer", None])
def test_a_pinned_guest_may_change_where_no_cpu_of_its_cell_is_dedicated_any_more(
    thread_policy: str | None, cells: list[dict[str, Any]] | None
) -> None:
    layout = [*SMT, cell(1, "4-7", ["4,5", "6,7"])]
    wide = host({"dedicated_cpus": "0-7"}, cells=layout)
    before = placed(place(wide, NOBODY, pinned(3 if cells else 2, thread_policy=thread_policy, cells=cells)))
    occupancy = beside(NOBODY, SOMEONE, before)
    narrow = host({"dedicated_cpus": "7"}, cells=layout)
    wish = pinned(3 if cells else 2, thread_policy=thread_policy, cells=cells)
    larger = wish.model_copy(update={"resources": wish.resources.model_copy(update={"disk": Disk(root_gib=1)})})
    after = placed(again(narrow, occupancy, before, larger))
    assert after.pins == before.pins
    assert {
        name: n - before.charge.get(name, 0) for name, n in after.charge.items() if n != before.charge.get(name)
    } == {"disk_mib": 1024}


def test_a_guest_that_grows_by_one_has_siblings_where_its_policy_says_so() -> None:
    here = host({"dedicated_cpus": "0-5"}, cells=[cell(0, "0-5", ["0,3", "1,4", "2,5"])])
    for steps, pins in (((1, 2), {0, 3}), ((3, 4), {0, 3, 1, 4}), ((2, 3), {0, 3, 1})):
        first, second = (pinned(vcpus, thread_policy="require") for vcpus in steps)
        before = placed(place(here, NOBODY, first))
        after = placed(again(here, beside(NOBODY, SOMEONE, before), before, second))
        assert after.pins == pins
        assert before.pins < after.pins
