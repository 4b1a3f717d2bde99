"""What a guest has it keeps, and under no other rule than the one it was given under."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.accounting.builders import (
    NOBODY,
    SOMEONE,
    again,
    cell,
    codes,
    fill,
    host,
    pinned,
    placed,
    shape,
)
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, Placement, beside, merged

SMALL = [{"size_kib": 4, "total": 1048576}]


def one_cell(siblings: list[str] | None = None, **policy: Any) -> Any:
    return host(policy, cells=[cell(0, "0-7", siblings)])


def unchanged(here: Any, before: Placement, wish: Any, *, free: bool = True, policy: str | None = None) -> Any:
    """The same size again, on a node that has or has not CPUs to spare."""
    others = Occupancy({}, {} if free else {cpu: SOMEONE for cpu in range(8) if cpu not in before.pins})
    return place(here, others, wish, own=merged([before]), held=[before], thread_policy=policy)  # type: ignore[arg-type]


PINNED, CELL, SMALL_ONLY = {"cpu_policy": "dedicated", "cells": 1}, {"cells": 1}, {"cells": 1, "page_size": "small"}


@pytest.mark.parametrize(
    ("later", "pages"), [(PINNED, None), (PINNED, SMALL), (SMALL_ONLY, SMALL), (CELL, None), (CELL, SMALL)]
)
def test_memory_held_under_a_ratio_is_no_licence_for_memory_of_ones_own(
    later: dict[str, Any], pages: list[dict[str, int]] | None
) -> None:
    cells = [cell(0, "0-7", memory_mib=4096, pages=pages or [])]
    policy = {"shared_cpus": "0-3", "dedicated_cpus": "4-7", "ratios": {"memory": "2.0"}}
    here = host(policy, cells=cells)
    shared = shape(1, 4096, topology={"cells": 1})
    occupancy = fill(here, NOBODY, shared)
    before = placed(place(here, occupancy, shared))
    after = again(here, beside(occupancy, SOMEONE, before), before, shape(1, 4096, topology=later))
    if later is CELL:
        assert placed(after) == before
    else:
        assert codes(after) == ["no_numa_fit"]


def test_memory_of_ones_own_is_no_licence_beyond_a_ratio() -> None:
    here = host({"dedicated_cpus": "4-7", "shared_cpus": "0-3", "ratios": {"memory": "0.5"}}, cells=[cell(0, "0-7")])
    before = placed(place(here, NOBODY, pinned(1, 8000)))
    occupancy = beside(NOBODY, SOMEONE, before)
    assert placed(again(here, occupancy, before, pinned(1, 8000))) == before
    assert codes(again(here, occupancy, before, shape(1, 8000, topology={"cells": 1}))) == ["no_numa_fit"]


def test_an_isolated_guest_keeps_its_cpus_where_their_siblings_are_dedicated_now() -> None:
    siblings = ["0,4", "1,5", "2,6", "3,7"]
    wish = pinned(2, thread_policy="isolate")
    before = placed(place(one_cell(siblings, dedicated_cpus="0-3"), NOBODY, wish))
    wide = one_cell(siblings, dedicated_cpus="0-7")
    assert placed(unchanged(wide, before, wish, policy="isolate")) == before
    assert placed(unchanged(wide, before, pinned(1, thread_policy="isolate"), policy="isolate")).pins < before.pins
    assert "no_numa_fit" in codes(unchanged(wide, before, wish, policy="prefer"))
    assert "no_numa_fit" in codes(unchanged(wide, before, pinned(3, thread_policy="isolate"), policy="isolate"))


@pytest.mark.parametrize("free", [True, False])
def test_a_guest_that_requires_siblings_keeps_its_cpus_where_there_are_none_any_more(*, free: bool) -> None:
    wish = pinned(4, thread_policy="require")
    before = placed(place(one_cell(["0,1", "2,3"], dedicated_cpus="0-3"), NOBODY, wish))
    without = one_cell(dedicated_cpus="0-3")
    assert placed(unchanged(without, before, wish, policy="require", free=free)) == before
    assert "no_numa_fit" in codes(unchanged(without, before, wish, policy=None, free=free))


def test_one_vcpu_keeps_its_cpu_though_its_sibling_was_given_away() -> None:
    here = one_cell(["0,1", "2,3", "4,5", "6,7"], dedicated_cpus="0-7")
    wish = pinned(1, thread_policy="require")
    before = placed(place(here, NOBODY, wish))
    assert placed(unchanged(here, before, wish, free=False)) == before


def test_a_guest_that_shrinks_under_require_is_left_no_two_cpus_without_siblings() -> None:
    here = one_cell(["0,4", "1,5", "2,6", "3,7"], dedicated_cpus="0-7")
    before = placed(place(here, Occupancy({}, dict.fromkeys((4, 5, 6, 7), SOMEONE)), pinned(2)))
    assert before.pins == {0, 1}
    grown = placed(place(here, NOBODY, pinned(4, thread_policy="require"), own=merged([before]), held=[before]))
    assert grown.pins == {0, 1, 4, 5}
    fewer = unchanged(here, grown, pinned(2, thread_policy="require"), policy="require")
    assert placed(fewer).pins in ({0, 4}, {1, 5})
