from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from schemas.commands import Shape
from schemas.policy import Policy
from tests.unit.accounting.builders import NOBODY, fill, host, pci, pinned, shape, two_cells, wanted
from worker.accounting.host.compiled import Host
from worker.accounting.placing.place import place
from worker.accounting.placing.repeat import obstacles, room_for
from worker.accounting.state.occupancy import Occupancy, Placement, beside
from worker.accounting.state.view import Node

TAKEN = Occupancy({"memory_mib": 700, "disk_mib": 0})
DEVICES = [pci("0000:01:00.0"), pci("0000:02:00.0"), pci("0000:03:00.0")]

CASES: dict[str, tuple[Host, Shape]] = {
    "amounts": (host(), shape(1, 1000)),
    "amounts with overhead": (host({"overhead": {"memory_mib": 24, "memory_percent": "10"}}), shape(1, 1000)),
    "overcommitted": (host({"ratios": {"vcpus": "4.0"}}), shape(3, 256)),
    "beyond a limit": (host({"limits": {"vcpus": {"max": 2}}}), shape(3)),
    "dedicated": (two_cells(), pinned(3)),
    "two cells": (two_cells(), pinned(4, cells=2)),
    "devices": (host(devices=DEVICES), shape(devices=[wanted(count=2)])),
    "too large": (host(), shape(99)),
}


def by_hand(here: Host, wish: Shape) -> int:
    """How often it fits, found by placing it once more until it is refused."""
    occupancy, times = TAKEN, 0
    while isinstance(found := place(here, occupancy, wish), Placement):
        occupancy, times = beside(occupancy, UUID(int=times), found), times + 1
    return times


@pytest.mark.parametrize("case", CASES)
def test_as_many_fit_as_can_be_placed_one_after_the_other(case: str) -> None:
    here, wish = CASES[case]
    room = room_for(here, TAKEN, wish, 10_000)
    assert room.times == by_hand(here, wish)
    assert room.reasons, "it says why no more fit"


def test_counting_ends_where_it_was_told_to() -> None:
    assert room_for(host(), NOBODY, shape(1, 10), 3).times == 3
    assert room_for(two_cells(), NOBODY, pinned(1), 3).times == 3
    assert room_for(host(), NOBODY, shape(1, 10), 3).reasons == ()


def test_counting_changes_nothing() -> None:
    here = two_cells()
    occupancy = fill(here, Occupancy(), pinned(2))
    before = (dict(occupancy.used), dict(occupancy.pinned), dict(occupancy.held))
    room_for(here, occupancy, pinned(1), 100)
    assert (occupancy.used, occupancy.pinned, occupancy.held) == before


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ({}, []),
        ({"policy": Policy(enabled=False)}, ["node_disabled"]),
        ({"hypervisor": "test:///default", "reachable": False}, ["hypervisor_unreachable"]),
        ({"hypervisor": "test:///default", "reachable": True}, []),
        ({"hypervisor": None, "reachable": False}, []),
        ({"parked": 3}, ["hypervisor_unreachable"]),
        ({"host": None}, ["hypervisor_unreachable"]),
    ],
)
def test_what_keeps_every_claim_off_a_node_is_named(more: dict[str, Any], codes: list[str]) -> None:
    node = Node(**{"name": "cn-1", "policy": Policy(), "occupancy": Occupancy(), "host": host(), **more})
    assert [why.code for why in obstacles(node)] == codes
