"""The host changed under its guests: what they hold counts against what there is now, and what stays may stay."""

from __future__ import annotations

from typing import Any

from tests.model.scene import Scene, uuid
from tests.unit.accounting.builders import NOBODY, again, cell, codes, fill, host, placed, shape
from worker.accounting.placing.place import place

LARGE = 2048


def paged(*totals: int) -> Any:
    pages = [[{"size_kib": 4, "total": 262144}, {"size_kib": LARGE, "total": total}] for total in totals]
    cells = [
        cell(number, f"{number * 4}-{number * 4 + 3}", memory_mib=1024 + total * 2, pages=sizes)
        for number, (total, sizes) in enumerate(zip(totals, pages, strict=True))
    ]
    return host(cells=cells)


def large(pages: int) -> Any:
    return shape(1, pages * 2, topology={"page_size": LARGE})


def test_pages_held_on_a_cell_that_is_gone_count_against_those_there_are() -> None:
    occupancy = fill(paged(1000, 1000), NOBODY, large(1000), large(1000))
    assert codes(place(paged(2000), occupancy, large(1))) == ["no_numa_fit"]
    fill(paged(2001), occupancy, large(1))


def test_pages_beyond_those_of_a_cell_that_shrank_count_against_those_of_others() -> None:
    occupancy = fill(paged(1000, 0), NOBODY, large(1000))
    assert codes(place(paged(400, 1000), occupancy, large(401))) == ["no_numa_fit"]
    fill(paged(400, 1000), occupancy, large(400))


def test_a_trait_that_was_lost_refuses_growth_and_nothing_else() -> None:
    scene = Scene()
    scene.nodes("n", policy={"traits": ["HW_FAST"]})
    sizes = [{"resources": {"vcpus": count, "memory_mib": 512}} for count in (1, 2, 3)]
    traits = {"traits": {"required": ["HW_FAST"]}}
    scene.claim("n", 1, **sizes[1], **traits)
    scene.nodes("n", policy={})
    scene.applied("resize", "n", instance=uuid(1), mode="immediate", **sizes[0], **traits)
    refused = scene.do("resize", "n", instance=uuid(1), mode="immediate", **sizes[2], **traits)
    assert [why["code"] for why in refused["reasons"]] == ["missing_trait"]


def test_a_guest_may_shrink_in_pages_of_a_size_that_is_listed_no_more() -> None:
    occupancy = fill(paged(1000), NOBODY, large(500))
    before = placed(place(paged(1000), NOBODY, large(500)))
    bare = host(cells=[cell(0, "0-3", pages=[{"size_kib": 4, "total": 262144}])])
    assert placed(again(bare, occupancy, before, large(400))).charge[f"cell/0/pages/{LARGE}"] == 400
    assert codes(again(bare, occupancy, before, large(501))) == ["no_numa_fit"]
