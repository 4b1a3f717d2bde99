"""Memory in small pages and memory in huge pages are two stores: neither is handed out of the other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.accounting.builders import NOBODY, again, cell, codes, fill, host, pinned, placed, refused, shape
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy

GIB = 1048576
PAGES = [{"size_kib": 4, "total": 524288}, {"size_kib": GIB, "total": 14}]


def here(policy: dict[str, Any] | None = None) -> Any:
    """One cell with 2048 MiB in small pages and 14 pages of 1 GiB."""
    return host(policy, cells=[cell(0, "0-7", memory_mib=16384, pages=PAGES)])


def huge(memory_mib: int, **topology: Any) -> Any:
    return shape(1, memory_mib, topology={"page_size": GIB, **topology})


def celled(memory_mib: int) -> Any:
    return shape(1, memory_mib, topology={"cells": 1})


def test_a_plain_guest_has_no_part_in_what_is_set_aside_as_huge_pages() -> None:
    (why,) = refused(place(here(), NOBODY, shape(1, 12288)))
    assert (why.resource, why.capacity, why.short_by) == ("memory_mib", 2048, 10240)
    assert placed(place(here(), NOBODY, shape(1, 2048))).charge["memory_mib"] == 2048


def test_a_guest_with_huge_pages_uses_up_no_small_ones() -> None:
    occupancy = fill(here(), NOBODY, shape(1, 2048), huge(8192))
    assert occupancy.used["memory_mib"] == 2048
    assert occupancy.used[f"cell/0/pages/{GIB}"] == 8
    assert codes(place(here(), occupancy, huge(7168))) == ["no_numa_fit"]
    fill(here(), occupancy, huge(6144))


@pytest.mark.parametrize("guest", [shape(1, 2048), celled(2048), pinned(1, 2048)])
def test_guests_without_a_page_size_share_the_small_pages_of_cell_and_node(guest: Any) -> None:
    divided = {"shared_cpus": "0-3", "dedicated_cpus": "4-7"}
    occupancy = fill(here(divided), NOBODY, guest)
    assert codes(place(here(divided), occupancy, shape(1, 256))) == ["insufficient"]
    if "cell/0/memory_mib" in occupancy.used:
        assert codes(place(here(divided), occupancy, celled(256))) == ["insufficient", "no_numa_fit"]


def test_the_memory_ratio_applies_to_small_pages_alone() -> None:
    doubled = here({"ratios": {"memory": "2.0"}})
    occupancy = fill(doubled, NOBODY, celled(2048), celled(2048), huge(14336))
    assert codes(place(doubled, occupancy, celled(256))) == ["insufficient", "no_numa_fit"]
    assert codes(place(doubled, NOBODY, huge(15360))) == ["no_numa_fit"]


def test_what_is_reserved_of_each_is_kept() -> None:
    kept = [{"cell": 0, "size_kib": 4, "count": 262144}, {"cell": 0, "size_kib": GIB, "count": 2}]
    less = here({"reserved": {"memory_mib": 512, "pages": kept}})
    assert codes(place(less, NOBODY, celled(1536))) == ["no_numa_fit"]
    assert codes(place(less, NOBODY, shape(1, 1792))) == ["insufficient"]
    assert codes(place(less, NOBODY, huge(13312))) == ["no_numa_fit"]
    fill(less, NOBODY, celled(1024), huge(12288))


def test_any_pages_that_turn_out_small_are_small_memory() -> None:
    full = Occupancy({f"cell/0/pages/{GIB}": 14})
    guest = shape(1, 1024, topology={"page_size": "any"})
    assert placed(place(here(), full, guest)).charge["memory_mib"] == 1024
    full.used["memory_mib"] = 1536
    assert codes(place(here(), full, guest)) == ["insufficient"]
    assert "memory_mib" not in placed(place(here(), NOBODY, guest)).charge


def test_the_overhead_of_a_guest_with_huge_pages_is_small_memory() -> None:
    node = here({"overhead": {"memory_mib": 100}})
    assert placed(place(node, NOBODY, huge(1024))).charge["memory_mib"] == 100


def test_limits_bound_the_memory_that_is_asked_for_in_any_pages_and_not_what_stays() -> None:
    node = here({"limits": {"memory_mib": {"max": 4096}}})
    assert "above_maximum" in codes(place(node, NOBODY, huge(5120)))
    occupancy = fill(here(), NOBODY, huge(5120))
    before = placed(place(here(), NOBODY, huge(5120)))
    assert placed(again(node, occupancy, before, huge(5120))) == before
