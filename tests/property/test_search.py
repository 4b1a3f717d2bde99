"""The searches against trying everything: the same host cells, and devices wherever there is a way to have them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from schemas.commands import Shape
from tests.unit.accounting.builders import host
from worker.accounting.host.devices import Stock
from worker.accounting.host.modes import bits, union
from worker.accounting.placing import layout as topology
from worker.accounting.placing import matching, nearby, place, search
from worker.accounting.placing.demand import Demand
from worker.accounting.placing.flow import Choice
from worker.accounting.placing.matching import Tiers
from worker.accounting.placing.search import Surroundings
from worker.accounting.state.occupancy import Occupancy, Placement, beside
from worker.accounting.work import Work

MORE = settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
ROWS = st.integers(1, 6).flatmap(lambda width: st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=4))


def first_arrangement(rows: Sequence[int], surroundings: Surroundings | None) -> list[int] | None:
    """The first of all arrangements, each looked at."""
    for positions in permutations(range(union(rows).bit_length()), len(rows)):
        if all(row >> position & 1 for row, position in zip(rows, positions, strict=True)):
            taken = union(1 << position for position in positions)
            if surroundings is None or surroundings.satisfied(taken):
                return list(positions)
    return None


def can_serve(demand: Demand, limits: Sequence[int]) -> bool:
    """Whether any way to serve all requests exists, each tried: unit by unit, offer by offer."""
    owed = [(want.units, want.allowed & limit) for want, limit in zip(demand.wants, limits, strict=True)]

    def serve(owed: list[tuple[int, int]], stock: Stock) -> bool:
        if not owed:
            return True
        (units, allowed), *rest = owed
        if not units:
            return serve(rest, stock)
        return any(
            serve([(units - 1, allowed >> offer << offer), *rest], without(stock, offer))
            for offer in bits(allowed & stock.free)
        )

    def without(stock: Stock, offer: int) -> Stock:
        left = stock.units.get(offer, 1) - 1
        gone = demand.catalog.excludes[offer] | (0 if left else 1 << offer)
        return Stock(stock.free & ~gone, {**stock.units, offer: left})

    return serve(owed, demand.stock)


def checked_arrange(rows: Sequence[int], surroundings: Surroundings | None, work: Work) -> list[int] | None:
    expected = first_arrangement(rows, copy(surroundings))
    event(f"arranged {len(rows)} cells with surroundings: {surroundings is not None}, found: {expected is not None}")
    assert search.arrange(rows, surroundings, work) == expected
    return expected


def checked_choose(demand: Demand, tiers: Sequence[Tiers]) -> Choice | None:
    choice = matching.choose(demand, tiers)
    if not demand.wants:
        assert choice == []
        return choice
    limits = [union(steps[-1]) for steps in tiers]
    event(f"chose for {len(demand.wants)} requests, found: {choice is not None}")
    if choice is None:
        assert not can_serve(demand, limits)
    else:
        check_choice(demand, limits, choice)
    return choice


def checked_possible(demand: Demand, tiers: Sequence[Tiers]) -> bool:
    verdict = matching.possible(demand, tiers)
    assert verdict == can_serve(demand, [union(steps[-1]) for steps in tiers])
    return verdict


def check_choice(demand: Demand, limits: Sequence[int], choice: Choice) -> None:
    """Each request has what it asked for, and no device is taken twice or beside one that it excludes."""
    used = union(1 << offer for taken in choice for offer in taken)
    assert not used & ~demand.stock.free
    assert not any(demand.catalog.excludes[offer] & used for offer in bits(used))
    for want, limit, taken in zip(demand.wants, limits, choice, strict=True):
        assert sum(taken.values()) == want.units
        assert all(want.allowed & limit & 1 << offer for offer in taken)
    for offer in bits(used):
        assert sum(taken.get(offer, 0) for taken in choice) <= demand.stock.units.get(offer, 1)


@given(ROWS)
def test_guest_cells_lie_on_the_first_host_cells_that_have_room_for_all(rows: list[int]) -> None:
    checked_arrange(rows, None, Work())


@st.composite
def hosts(draw: st.DrawFn) -> dict[str, Any]:
    """Two to four cells with plenty of room, and cards of two makes all over them."""
    count = draw(st.integers(2, 4))
    cells = [
        {
            "id": number,
            "socket": draw(st.sampled_from([0, 0, 1])),
            "cpus": f"{8 * number}-{8 * number + 7}",
            "memory_mib": 8192,
            "physnets": draw(st.lists(st.sampled_from(["a", "b"]), unique=True)),
        }
        for number in range(count)
    ]
    devices: list[dict[str, Any]] = []
    for card in range(draw(st.integers(2, 6))):
        common = {
            "vendor": "10de",
            "product": draw(st.sampled_from(["0001", "0002"])),
            "cell": draw(st.sampled_from([None, *range(count), *range(count)])),
        }
        functions = draw(st.sampled_from([0, 0, 1, 2]))
        devices.append({**common, "address": f"0000:0{card}:00.0", "type": "pf" if functions else "pci"})
        devices += [
            {**common, "address": f"0000:0{card}:00.{number}", "type": "vf", "parent": f"0000:0{card}:00.0"}
            for number in range(1, functions + 1)
        ]
    return {"cpus": f"0-{8 * count - 1}", "memory_mib": 8192 * count, "cells": cells, "devices": devices}


@st.composite
def guests(draw: st.DrawFn) -> dict[str, Any]:
    """Guests for which any host cell has room, so that networks and devices decide."""
    cells = draw(st.integers(1, 3))
    devices = [
        {
            "name": f"d{number}",
            "count": draw(st.integers(1, 2)),
            "match": [draw(st.sampled_from([{}, {"product": "0001"}, {"product": "0002"}]))],
            "type": draw(st.sampled_from([None, None, "pci", "pf", "vf"])),
            "affinity": draw(st.sampled_from(["required", "required", "legacy", "legacy", "preferred", "socket"])),
        }
        for number in range(draw(st.integers(0, 3)))
    ]
    networks = {"physnets": draw(st.sampled_from([[], [], [], ["a"], ["a", "b"]]))}
    return {
        "resources": {"vcpus": cells, "memory_mib": 256 * cells},
        "topology": {"cpu_policy": "shared", "cells": cells, "networks": networks},
        "devices": devices,
    }


@MORE
@given(hosts(), st.lists(guests(), min_size=1, max_size=6))
def test_networks_and_devices_near_the_cells_are_found_wherever_there_is_a_way(
    inventory: dict[str, Any], wishes: list[dict[str, Any]]
) -> None:
    here, occupancy = host(**inventory), Occupancy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topology, "arrange", checked_arrange)
        for module in (nearby, place):
            patch.setattr(module, "choose", checked_choose)
        for module in (nearby, topology):
            patch.setattr(module, "possible", checked_possible)
        for number, wish in enumerate(wishes):
            result = place.place(here, occupancy, Shape.model_validate(wish))
            if isinstance(result, Placement):
                occupancy = beside(occupancy, UUID(int=number), result)
