"""Dedicated vCPUs in last-level caches: never in more than brute force over all ways finds necessary."""

from __future__ import annotations

from itertools import combinations
from typing import Literal
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import Inventory, Policy
from tests.unit.accounting.builders import pinned
from worker.accounting.host.caches import Caches
from worker.accounting.host.compiled import build_host
from worker.accounting.host.cpus import bits_of, extended, mask_of, pack
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, Placement

Threads = Literal["prefer", "isolate", "require"] | None
Cell = tuple[list[int], list[int], int]
"""Cores, caches, and the CPUs that are free."""

NOBODY = UUID(int=9)
MANY = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
_policies: st.SearchStrategy[Threads] = st.sampled_from([None, "prefer", "require", "isolate"])


@st.composite
def cells(draw: st.DrawFn, *, known: bool = False) -> Cell:
    """Up to four caches of up to three cores of one or two threads; perhaps cores whose cache nobody knows."""
    cores: list[int] = []
    caches: list[int] = []
    first, threads = 0, draw(st.sampled_from([1, 2]))
    for number in range(draw(st.integers(1, 4))):
        own = [
            mask_of(range(at, at + threads)) for at in range(first, first + threads * draw(st.integers(1, 3)), threads)
        ]
        first += threads * len(own)
        cores += own
        if number == 0 or known or draw(st.integers(0, 5)):
            caches.append(sum(own))
    return draw(st.permutations(cores)), caches, mask_of(draw(st.sets(st.integers(0, first - 1), min_size=1)))


def lie_in(caches: list[int], cpus: int) -> int:
    """How many caches CPUs lie in, those that nobody knows of counting as one."""
    return sum(1 for mask in (*caches, ~sum(caches)) if mask & cpus)


def packs(cores: list[int], free: int, wanted: int, policy: Threads) -> bool:
    try:
        return len(pack(cores, free, wanted, 0, policy).pins) == wanted
    except ValueError:
        return False


def as_good(cores: list[int], free: int, wanted: int, policy: Threads) -> list[int]:
    """All choices of CPUs that use whole cores if any does so."""
    cores = [core for core in cores if policy != "isolate" or core.bit_count() == 1]
    choices = [mask_of(chosen) for chosen in combinations(bits_of(free & sum(cores)), wanted)]
    whole = [cpus for cpus in choices if sum((core & cpus).bit_count() == 1 for core in cores) == wanted % 2]
    paired = [cpus for cpus in whole if all((core & free).bit_count() == 2 for core in cores if core & cpus)]
    return paired or ([] if policy == "require" else choices)


@MANY
@given(cells(), st.integers(1, 6), _policies)
def test_as_few_caches_as_can_be_are_used_by_what_is_as_good_in_siblings(
    cell: Cell, wanted: int, policy: Threads
) -> None:
    cores, caches, free = cell
    if not packs(cores, free, wanted, policy):
        return
    pins = mask_of(pack(cores, free, wanted, 0, policy, Caches(tuple(caches), None)).pins)
    fewest = min(lie_in(caches, cpus) for cpus in as_good(cores, free, wanted, policy))
    assert (pins & ~free, pins.bit_count(), lie_in(caches, pins)) == (0, wanted, fewest)


@MANY
@given(cells(known=True), st.integers(1, 3), st.integers(1, 3))
def test_a_guest_that_grows_takes_as_few_further_caches_as_can_be(cell: Cell, before: int, more: int) -> None:
    """On cores of one thread, where no sibling comes first."""
    cores, caches, free = cell
    cores = [1 << cpu for core in cores for cpu in bits_of(core)]
    if before + more > free.bit_count():
        return
    packed = Caches(tuple(caches), None)
    pins = pack(cores, free, before, 0, None, packed).pins
    left = free & ~mask_of(pins)
    added = extended(cores, left, pins, more, None, packed)
    assert added is not None
    ways = (mask_of([*pins, *chosen]) for chosen in combinations(bits_of(left), more))
    assert lie_in(caches, mask_of([*pins, *added])) == min(lie_in(caches, cpus) for cpus in ways)


@MANY
@given(cells(), st.integers(1, 6), _policies)
def test_require_is_kept_within_what_empty_hardware_could_do_and_refused_only_where_that_is_not_free(
    cell: Cell, wanted: int, policy: Threads
) -> None:
    cores, caches, free = cell
    everything = sum(cores)

    def fewest(usable: int) -> int | None:
        for count in range(1, len(caches) + 1):
            if any(packs(cores, usable & sum(some), wanted, policy) for some in combinations(caches, count)):
                return count
        return None

    could, can = fewest(everything), fewest(free)
    result = placed_on(cores, caches, free, wanted, policy)
    if could is None or can is None or can > could:
        assert isinstance(result, list)
        return
    assert isinstance(result, Placement)
    pins = mask_of(result.pins)
    assert (pins & ~free, pins.bit_count()) == (0, wanted)
    assert lie_in(caches, pins) <= could
    assert not pins & ~sum(caches)


def placed_on(cores: list[int], caches: list[int], free: int, wanted: int, policy: Threads) -> Placement | list[object]:
    """A guest that requires few caches, on a host of this one cell."""
    everything = sum(cores)
    told = {
        "cpus": listed(everything),
        "memory_mib": 4096,
        "cells": [
            {
                "id": 0,
                "cpus": listed(everything),
                "siblings": list(map(listed, cores)),
                "caches": list(map(listed, caches)),
                "memory_mib": 4096,
            }
        ],
    }
    settings_ = {"dedicated_cpus": listed(everything), "reserved": {"memory_mib": 0}}
    host = build_host(Inventory.model_validate(told), Policy.model_validate(settings_), observed=False)
    others = dict.fromkeys(bits_of(everything & ~free), NOBODY)
    return place(host, Occupancy(pinned=others), pinned(wanted, thread_policy=policy, cache="require"))  # type: ignore[return-value]


def listed(cpus: int) -> str:
    return ",".join(map(str, bits_of(cpus)))
