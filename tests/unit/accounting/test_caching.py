"""Dedicated vCPUs within few last-level caches, as a topology asks for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.accounting.builders import (
    NOBODY,
    SOMEONE,
    cell,
    cells_of,
    codes,
    host,
    pinned,
    placed,
    refused,
    shape,
    two_cells,
)
from worker.accounting.host.compiled import Host
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, Placement, merged

FOUR = ["0-3", "4-7", "8-11", "12-15"]


def caches(**policy: Any) -> Host:
    """One cell of 16 CPUs of one thread, four to a cache."""
    return host({"dedicated_cpus": "0-15", **policy}, cpus="0-15", cells=[cell(0, "0-15", caches=FOUR)])


def taken(*cpus: int) -> Occupancy:
    return Occupancy(pinned=dict.fromkeys(cpus, SOMEONE))


def resized(here: Host, was: Placement, vcpus: int, others: Occupancy = NOBODY, **topology: Any) -> set[int]:
    own = merged([was])
    result = place(here, others, pinned(vcpus, **topology), own=own, held=[was], cache="require")
    return set(placed(result).pins)


def test_what_asks_for_few_caches_gets_them_and_what_does_not_takes_the_first_that_are_free() -> None:
    others = taken(0, 1, 4, 8, 9)
    assert placed(place(caches(), others, pinned(3))).pins == {2, 3, 5}
    assert placed(place(caches(), others, pinned(3, cache="prefer"))).pins == {5, 6, 7}
    assert placed(place(caches(), others, pinned(3, cache="require"))).pins == {5, 6, 7}


def test_the_cache_with_the_least_room_that_is_enough_is_taken_so_that_others_stay_whole() -> None:
    assert placed(place(caches(), taken(8, 9), pinned(2, cache="prefer"))).pins == {10, 11}
    assert placed(place(caches(), taken(8, 9), pinned(6, cache="prefer"))).pins == {0, 1, 2, 3, 10, 11}


def test_prefer_is_never_refused_and_require_with_the_numbers_that_are_missing() -> None:
    others = taken(0, 4, 8, 12)
    assert len(placed(place(caches(), others, pinned(4, cache="prefer"))).pins) == 4
    (reason,) = refused(place(caches(), others, pinned(4, cache="require")))
    assert reason.code == "no_numa_fit"
    lack = {"guest_cells": "0", "resource": "cache_cpus", "requested": 4, "free": 3, "short_by": 1, "caches": 1}
    assert reason.cells == [{"cell": 0, "lacks": [lack]}]
    assert "1 cache_cpus in 1 last-level caches (4 requested, 3 free)" in reason.detail
    assert len(placed(place(caches(), taken(4, 8, 12), pinned(4, cache="require"))).pins) == 4


@pytest.mark.parametrize(("vcpus", "most"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (16, 4)])
def test_require_means_the_fewest_caches_that_empty_hardware_would_need(vcpus: int, most: int) -> None:
    pins = placed(place(caches(), NOBODY, pinned(vcpus, cache="require"))).pins
    assert len({cpu // 4 for cpu in pins}) == most


def test_only_dedicated_cpus_of_a_cache_count_and_unequal_caches_are_taken_as_they_are() -> None:
    uneven = caches(dedicated_cpus="1-7,10-15", shared_cpus="0,8-9")
    assert placed(place(uneven, NOBODY, pinned(3, cache="require"))).pins == {1, 2, 3}
    (reason,) = refused(place(uneven, taken(4, 12), pinned(4, cache="require")))
    assert reason.cells == [
        {
            "cell": 0,
            "lacks": [
                {"guest_cells": "0", "resource": "cache_cpus", "requested": 4, "free": 3, "short_by": 1, "caches": 1}
            ],
        }
    ]
    assert len(placed(place(uneven, taken(4), pinned(10, cache="require"))).pins) == 10


def test_siblings_come_first() -> None:
    """Two whole cores in two caches are better than four halves in one."""
    cores = ["0,8", "1,9", "2,10", "3,11", "4,12", "5,13", "6,14", "7,15"]
    here = host(
        {"dedicated_cpus": "0-15"}, cpus="0-15", cells=[cell(0, "0-15", cores, caches=["0-3,8-11", "4-7,12-15"])]
    )
    halves = taken(0, 1, 2, 4, 5, 6)
    assert placed(place(here, halves, pinned(4, cache="prefer"))).pins == {3, 11, 7, 15}
    assert placed(place(here, halves, pinned(4, cache="require"))).pins == {8, 9, 10, 3}
    assert codes(place(here, halves, pinned(4, cache="require", thread_policy="require"))) == ["no_numa_fit"]


def test_cells_come_first_and_each_has_its_caches() -> None:
    both = [cell(0, "0-3", caches=["0-1", "2-3"]), cell(1, "4-7", caches=["4-5", "6-7"])]
    here = host({"dedicated_cpus": "0-7"}, cells=both)
    result = placed(place(here, taken(0, 6), pinned(4, 2048, cells=2, cache="require")))
    assert [set(one["pins"].values()) for one in cells_of(result)] == [{2, 3}, {4, 5}]
    assert codes(place(here, taken(0, 2), pinned(4, 2048, cells=2, cache="require"))) == ["no_numa_fit"]


def test_a_host_that_tells_no_caches_promises_none() -> None:
    (reason,) = refused(place(two_cells(), NOBODY, pinned(2, cache="require")))
    assert "its host tells no last-level caches" in reason.detail
    assert placed(place(two_cells(), NOBODY, pinned(2, cache="prefer"))).pins == {0, 2}
    assert codes(place(host({"dedicated_cpus": "0-7"}), NOBODY, pinned(2, cache="require"))) == ["no_numa_fit"]


def test_a_guest_that_grows_stays_in_its_caches_or_goes_where_all_of_it_fits() -> None:
    was = placed(place(caches(), NOBODY, pinned(2, cache="require")))
    assert resized(caches(), was, 3, cache="require") == {0, 1, 2}
    assert resized(caches(), was, 3, taken(2, 3), cache="require") <= {4, 5, 6, 7}
    assert resized(caches(), was, 6, taken(4), cache="require") >= {0, 1, 2, 3}


def test_what_does_not_grow_stays_where_it_is_also_where_its_caches_are_others_now() -> None:
    was = placed(place(caches(), NOBODY, pinned(4, cache="require")))
    changed = host({"dedicated_cpus": "0-15"}, cpus="0-15", cells=[cell(0, "0-15", caches=["0-1,4-5", "2-3,6-7"])])
    others = taken(4, 5, 6, 7)
    assert resized(changed, was, 4, others, cache="require") == {0, 1, 2, 3}
    assert resized(changed, was, 3, others, cache="require") <= {0, 1, 2, 3}
    grown = pinned(5, cache="require")
    assert codes(place(changed, others, grown, own=merged([was]), held=[was], cache="require")) == ["no_numa_fit"]


def test_require_asked_for_later_moves_a_guest_together_or_is_refused() -> None:
    was = placed(place(caches(), taken(0, 1, 4, 5), pinned(4)))
    assert was.pins == {2, 3, 6, 7}
    own, wish = merged([was]), pinned(4, cache="require")
    assert placed(place(caches(), taken(0, 1, 4, 5), wish, own=own, held=[was])).pins == {8, 9, 10, 11}
    assert codes(place(caches(), taken(0, 4, 8, 12), wish, own=own, held=[was])) == ["no_numa_fit"]


def test_emulator_threads_are_not_bound_to_the_caches() -> None:
    result = placed(place(caches(), NOBODY, pinned(4, cache="require", emulator_threads="isolate")))
    assert (set(cells_of(result)[0]["pins"].values()), cells_of(result)[0]["emulator_cpus"]) == ({0, 1, 2, 3}, "4")


def test_caches_without_dedicated_vcpus_contradict_themselves() -> None:
    (reason,) = refused(place(caches(), NOBODY, shape(2, topology={"cache": "prefer"})))
    assert (reason.code, reason.resource) == ("invalid_request", "topology.cache")
