from __future__ import annotations

from typing import Any

import pytest

from tests.unit.accounting.builders import (
    NOBODY,
    SOMEONE,
    cell,
    cells_of,
    codes,
    fill,
    host,
    pinned,
    pins_of,
    placed,
    refused,
    shape,
    two_cells,
)
from worker.accounting.host.cpus import attainable, bits_of, extended, mask_of, pack
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy

CORES = [mask_of(core) for core in ((0, 4), (1, 5), (2, 6), (3, 7))]
ALL = mask_of(range(8))


@pytest.mark.parametrize(
    ("policy", "free", "wanted", "pins"),
    [
        (None, ALL, 4, [0, 4, 1, 5]),
        ("prefer", ALL, 3, [0, 4, 1]),
        ("prefer", mask_of([0, 1, 2, 3]), 3, [0, 1, 2]),
        ("prefer", mask_of([0, 4, 1, 2]), 3, [0, 1, 2]),
        ("prefer", mask_of([0, 4, 1]), 3, [0, 4, 1]),
        ("require", ALL, 2, [0, 4]),
        ("require", ALL, 3, [0, 4, 1]),
        ("require", mask_of([0, 1, 2, 3, 7]), 2, [3, 7]),
    ],
)
def test_siblings_are_used_as_the_policy_says(policy: str | None, free: int, wanted: int, pins: list[int]) -> None:
    assert attainable(CORES, free, 0, policy) >= wanted  # type: ignore[arg-type]
    assert pack(CORES, free, wanted, 0, policy).pins == pins  # type: ignore[arg-type]


def test_require_never_settles_for_single_threads() -> None:
    assert attainable(CORES, mask_of([0, 1, 2, 3]), 0, "require") == 0
    with pytest.raises(ValueError, match="do not fit"):
        pack(CORES, mask_of([0, 1, 2, 3]), 1, 0, "require")


def test_cores_of_eight_threads_are_filled_evenly() -> None:
    cores = [mask_of(range(first, first + 8)) for first in (0, 8)]
    assert pack(cores, mask_of(range(16)), 8, 0, None).pins == list(range(8))
    assert pack(cores, mask_of(range(2, 14)), 8, 0, None).pins == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("policy", "free", "pins", "more", "added"),
    [
        ("require", ALL, [0], 1, [4]),
        ("require", ALL, [0, 4, 1], 1, [5]),
        (None, ALL, [0], 2, [4, 1]),
        ("prefer", ALL & ~mask_of([4]), [0], 2, [1, 5]),
        ("require", ALL & ~mask_of([4]), [0], 1, None),
        ("require", ALL & ~mask_of([4]), [0], 2, [1, 5]),
        ("require", ALL, [0, 1], 2, [4, 5]),
        ("require", ALL, [0, 1, 2], 1, None),
        (None, mask_of([4]), [0], 2, None),
    ],
)
def test_further_cpus_are_siblings_of_those_there_are_and_all_together_follow_the_policy(
    policy: str | None, free: int, pins: list[int], more: int, added: list[int] | None
) -> None:
    assert extended(CORES, free & ~mask_of(pins), pins, more, policy) == added  # type: ignore[arg-type]


def test_isolated_vcpus_and_emulator_threads_have_cores_of_their_own() -> None:
    cores = [mask_of([0, 4]), *(1 << cpu for cpu in (1, 2, 3))]
    packing = pack(cores, mask_of(range(5)), 2, 1, "isolate")
    assert (packing.pins, packing.emulator) == ([1, 2], [3])
    assert attainable(cores, mask_of(range(5)), 1, "isolate") == 2


def test_isolate_is_refused_where_dedicated_cpus_have_siblings() -> None:
    (reason,) = refused(place(two_cells(), NOBODY, pinned(thread_policy="isolate")))
    assert "cores_without_siblings" in reason.detail
    single = host({"dedicated_cpus": "0-7"}, cells=[cell(0, "0-7")])
    assert placed(place(single, NOBODY, pinned(2, thread_policy="isolate"))).pins == {0, 1}
    assert codes(place(single, NOBODY, pinned(2, thread_policy="require"))) == ["no_numa_fit"]


def test_isolate_needs_no_more_than_that_the_dedicated_cpus_have_no_siblings() -> None:
    cells = [cell(0, "0-7", ["0,4", "1,5"])]
    here = host({"shared_cpus": "0,4,1,5", "dedicated_cpus": "2,3,6,7"}, cells=cells)
    assert placed(place(here, NOBODY, pinned(2, thread_policy="isolate"))).pins == {2, 3}
    beside_shared = host({"shared_cpus": "4-7", "dedicated_cpus": "0-3"}, cells=cells)
    assert codes(place(beside_shared, NOBODY, pinned(2, thread_policy="isolate"))) == ["no_numa_fit"]


def test_isolate_counts_cores_where_a_cpu_that_is_dedicated_no_more_lies_beside_one_that_is() -> None:
    cells = [cell(0, "0-7", ["0,4", "1,5", "2,6", "3,7"])]
    before = placed(place(host({"dedicated_cpus": "0-3"}, cells=cells), NOBODY, pinned(thread_policy="isolate")))
    assert before.pins == {0}
    now = host({"dedicated_cpus": "4-7"}, cells=cells)
    mine: dict[str, Any] = {"own": before.charge, "held": [before]}
    assert placed(place(now, NOBODY, pinned(3, thread_policy="isolate"), **mine)).pins == {5, 6, 7}
    (reason,) = refused(place(now, NOBODY, pinned(4, thread_policy="isolate"), **mine))
    assert "1 free_cores (4 requested, 3 free)" in reason.detail


def test_emulator_threads_have_a_cpu_of_their_own_on_the_first_cell() -> None:
    placement = placed(place(two_cells(), NOBODY, pinned(2, cells=2, emulator_threads="isolate")))
    assert [lying["emulator_cpus"] for lying in cells_of(placement)] == ["2", ""]
    assert placement.pins == {0, 2, 4}


def test_shared_emulator_threads_run_on_the_shared_cpus() -> None:
    here = two_cells({"shared_cpus": "0,4", "dedicated_cpus": "1-3,5-7"})
    placement = placed(place(here, NOBODY, pinned(2, cells=2, emulator_threads="share")))
    assert [lying["emulator_cpus"] for lying in cells_of(placement)] == ["0,4", ""]
    assert not placement.pins & {0, 4}


def test_a_pinned_cpu_is_never_given_twice() -> None:
    occupancy = fill(two_cells(), NOBODY, *[pinned(1)] * 8)
    assert len(occupancy.pinned) == 8
    assert codes(place(two_cells(), occupancy, pinned(1))) == ["insufficient", "no_numa_fit"]


def test_shared_vcpus_of_a_mixed_guest_are_within_the_ratio_of_its_cell() -> None:
    here = two_cells({"shared_cpus": "0,4", "dedicated_cpus": "1-3,5-7", "ratios": {"vcpus": "2.0"}})
    mixed = shape(2, topology={"cpu_policy": "mixed", "dedicated_vcpus": "1"})
    occupancy = Occupancy({"vcpus": 3, "cell/0/vcpus": 2, "cell/1/vcpus": 1})
    placement = placed(place(here, occupancy, mixed))
    assert placement.charge["cell/1/vcpus"] == 1
    occupancy = Occupancy({"cell/0/vcpus": 2, "cell/1/vcpus": 2})
    assert codes(place(here, occupancy, mixed)) == ["no_numa_fit"]


def test_vcpus_are_pinned_in_their_order() -> None:
    topology = {
        "cpu_policy": "dedicated",
        "cells": [{"vcpus": "1,3", "memory_mib": 512}, {"vcpus": "0,2", "memory_mib": 512}],
    }
    placement = placed(place(two_cells(), NOBODY, shape(4, topology=topology)))
    assert [lying["pins"] for lying in cells_of(placement)] == [{"1": 0, "3": 2}, {"0": 4, "2": 6}]


def test_masks_are_read_back_lowest_first() -> None:
    assert bits_of(mask_of([9, 0, 300])) == [0, 9, 300]
    assert bits_of(mask_of([60_000, 5_000, 5_003])) == [5_000, 5_003, 60_000]
    assert bits_of(0) == []
    assert pins_of(placed(place(two_cells(), Occupancy({}, {0: SOMEONE}), pinned(1)))) == [[4]]
