from __future__ import annotations

import pytest

from tests.unit.accounting.builders import (
    NOBODY,
    SOMEONE,
    again,
    cell,
    cells_of,
    codes,
    host,
    pinned,
    placed,
    refused,
    shape,
)
from worker.accounting.host.capacity import Capacity
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, beside


def test_capacity_is_what_is_not_reserved_times_the_ratio_rounded_down() -> None:
    policy = {"ratios": {"vcpus": "1.5", "memory": "1.1", "disk": "0.3"}, "reserved": {"vcpus": 1, "memory_mib": 1}}
    assert host(policy, cpus="0-5", memory_mib=100, disk_gib=1, custom={"CUSTOM_A": 3}).capacity == {
        "vcpus": Capacity(6, 1, 7),
        "pcpus": Capacity(0, 0, 0),
        "memory_mib": Capacity(100, 1, 108),
        "disk_mib": Capacity(1024, 0, 307),
        "CUSTOM_A": Capacity(3, 0, 3),
    }


def test_capacity_is_never_below_nothing() -> None:
    assert host({"reserved": {"memory_mib": 999}}, memory_mib=512).capacity["memory_mib"].capacity == 0


@pytest.mark.parametrize(
    ("policy", "vcpus", "pcpus"),
    [
        ({}, 8, 0),
        ({"dedicated_cpus": "2-5"}, 0, 4),
        ({"shared_cpus": "0-1"}, 2, 0),
        ({"shared_cpus": "0-1", "dedicated_cpus": "2-99"}, 2, 6),
    ],
)
def test_the_policy_says_which_online_cpus_are_shared_and_which_dedicated(
    policy: dict[str, str], vcpus: int, pcpus: int
) -> None:
    here = host({**policy, "ratios": {"vcpus": "1.0"}})
    assert (here.capacity["vcpus"].total, here.capacity["pcpus"].total) == (vcpus, pcpus)


def test_a_refusal_names_everything_that_is_short_and_by_how_much() -> None:
    wish = shape(40, 20000, resources={"disk": {"root_gib": 101}, "custom": {"CUSTOM_A": 3, "CUSTOM_B": 1}})
    reasons = refused(place(host(custom={"CUSTOM_A": 2}), Occupancy({"vcpus": 2}), wish))
    assert [(r.code, r.resource, r.used, r.capacity, r.short_by) for r in reasons] == [
        ("insufficient", "vcpus", 2, 32, 32),
        ("insufficient", "memory_mib", 0, 16384, 3616),
        ("insufficient", "disk_mib", 0, 102400, 1024),
        ("insufficient", "CUSTOM_A", 0, 2, 1),
        ("unknown_resource", "CUSTOM_B", None, None, None),
    ]


def test_disk_counts_swap_and_not_a_root_on_a_volume() -> None:
    disk = {"root_gib": 50, "ephemeral_gib": 2, "swap_mib": 3, "boot_from_volume": True}
    assert placed(place(host(), NOBODY, shape(resources={"disk": disk}))).charge["disk_mib"] == 2051


def test_overhead_is_charged_with_the_memory_rounded_up() -> None:
    here = host({"overhead": {"memory_mib": 100, "memory_mib_per_vcpu": 8, "memory_percent": "1"}})
    assert placed(place(here, NOBODY, shape(4, 1001))).charge == {"vcpus": 4, "memory_mib": 1001 + 100 + 32 + 11}


def test_what_does_not_grow_is_not_refused_however_little_there_is() -> None:
    crowded = Occupancy({"vcpus": 1000, "memory_mib": 99999})
    assert codes(place(host(), crowded, shape(4, 4096), own={"vcpus": 4, "memory_mib": 4095})) == ["insufficient"]
    placed(place(host(), crowded, shape(4, 4096), own={"vcpus": 4, "memory_mib": 4096}))


@pytest.mark.parametrize(
    ("vcpus", "expected"),
    [(1, ["below_minimum", "not_a_multiple"]), (2, []), (3, ["not_a_multiple"]), (6, ["above_maximum"])],
)
def test_limits_bound_what_one_instance_may_ask(vcpus: int, expected: list[str]) -> None:
    here = host({"limits": {"vcpus": {"min": 2, "max": 4, "step": 2}, "pcpus": {"min": 2}}})
    result = place(here, NOBODY, shape(vcpus))
    assert (codes(result) if isinstance(result, list) else []) == expected


def test_limits_do_not_count_overhead_and_leave_what_stays_alone() -> None:
    here = host({"limits": {"memory_mib": {"max": 1024, "step": 512}}, "overhead": {"memory_mib": 1}})
    placed(place(here, NOBODY, shape(1, 1024)))
    placed(place(here, NOBODY, shape(1, 1100), own={"memory_mib": 1101}))
    placed(place(here, NOBODY, shape(1, 1536), own={"memory_mib": 2049}))


def test_traits_are_the_hosts_own_and_the_operators() -> None:
    here = host({"traits": ["CUSTOM_FAST"]}, traits=["HW_CPU_X86_AVX2"])
    placed(place(here, NOBODY, shape(traits={"required": ["CUSTOM_FAST", "HW_CPU_X86_AVX2"]})))
    wish = shape(traits={"required": ["CUSTOM_GREEN", "CUSTOM_BLUE"], "forbidden": ["CUSTOM_FAST", "CUSTOM_SLOW"]})
    reasons = refused(place(here, NOBODY, wish))
    assert [(r.code, r.resource) for r in reasons] == [
        ("missing_trait", "CUSTOM_BLUE"),
        ("missing_trait", "CUSTOM_GREEN"),
        ("missing_trait", "CUSTOM_FAST"),
    ]


@pytest.mark.parametrize(
    ("vcpus", "memory_mib", "short"), [(8, 16384, []), (9, 16384, [("vcpus", 1)]), (1, 24576, [("memory_mib", 8192)])]
)
def test_no_instance_holds_more_than_there_is_whatever_the_ratio(
    vcpus: int, memory_mib: int, short: list[tuple[str, int]]
) -> None:
    here = host({"ratios": {"memory": "2.0", "disk": "2.0"}})
    for wish in (shape(vcpus, memory_mib), shape(vcpus, memory_mib, topology={})):
        result = place(here, NOBODY, wish)
        assert [(r.resource, r.short_by) for r in (result if isinstance(result, list) else [])] == short
    large = shape(1, 1, resources={"disk": {"root_gib": 101}})
    assert [r.resource for r in refused(place(here, NOBODY, large))] == ["disk_mib"]


def test_what_is_held_beyond_the_hardware_may_stay_and_shrink() -> None:
    before = placed(place(host(), NOBODY, shape(8, 16384)))
    occupancy = beside(NOBODY, SOMEONE, before)
    smaller = host(cpus="0-3", memory_mib=8192)
    assert placed(again(smaller, occupancy, before, shape(8, 16384))) == before
    assert placed(again(smaller, occupancy, before, shape(6, 12288))).charge["vcpus"] == 6


def test_a_pinned_cpu_is_shared_with_nobody_though_the_policy_shares_it_now() -> None:
    cells = [cell(0, "0-3"), cell(1, "4-7")]
    for layout in ([], cells):
        before = placed(place(host({"dedicated_cpus": "0-7"}, cells=layout), NOBODY, pinned(4)))
        occupancy = beside(NOBODY, SOMEONE, before)
        here = host({"ratios": {"vcpus": "1.0"}}, cells=layout)
        (reason,) = refused(place(here, occupancy, shape(8, 1)))
        assert (reason.resource, reason.capacity, reason.short_by) == ("vcpus", 4, 4)
        assert placed(place(here, occupancy, shape(4, 1))).charge["vcpus"] == 4
        assert placed(again(here, occupancy, before, shape(8, 1))).pins == frozenset()
    (lying,) = cells_of(placed(place(here, occupancy, shape(4, 1, topology={"cells": 1}))))
    assert (lying["host_cell"], lying["shared_cpus"]) == (1, "4-7")
    assert "no_numa_fit" in codes(place(here, occupancy, shape(2, 2, topology={"cells": 2})))


def test_limits_of_shared_vcpus_and_of_dedicated_cpus_are_two() -> None:
    limits = {"vcpus": {"max": 1}, "pcpus": {"max": 2}}
    here = host({"dedicated_cpus": "0-3", "shared_cpus": "4-7", "limits": limits})
    assert placed(place(here, NOBODY, pinned(2))).pins == {0, 1}
    assert [(r.code, r.resource) for r in refused(place(here, NOBODY, pinned(3)))] == [("above_maximum", "pcpus")]
    isolated = pinned(2, emulator_threads="isolate")
    assert [(r.code, r.resource) for r in refused(place(here, NOBODY, isolated))] == [("above_maximum", "pcpus")]
    assert [r.resource for r in refused(place(here, NOBODY, shape(2)))] == ["vcpus"]
