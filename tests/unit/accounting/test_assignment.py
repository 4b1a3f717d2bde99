"""What an assignment says besides cells and pins: where the rest of a guest runs, and what its devices are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.scene import Scene, uuid
from tests.unit.accounting.builders import NOBODY, SOMEONE, host, pci, pinned, placed, shape, two_cells, wanted
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy

SPLIT = {"shared_cpus": "0-1,4", "dedicated_cpus": "2-3,6-7"}
LIMITED = {**SPLIT, "limits": {"vcpus": {"max": 4}}}
GUESTS = [
    shape(1),
    shape(1, topology={}),
    shape(2, topology={"cells": 2}),
    pinned(1),
    shape(2, topology={"cpu_policy": "mixed", "dedicated_vcpus": "0"}),
]


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("policy", [SPLIT, LIMITED])
def test_every_guest_of_a_node_that_divides_its_cpus_is_told_the_shared_ones(
    policy: dict[str, Any], guest: Any
) -> None:
    assert placed(place(two_cells(policy), NOBODY, guest)).assignment["shared_cpus"] == "0-1,4"


def test_where_none_is_shared_none_is_told() -> None:
    assert placed(place(host({"dedicated_cpus": "0-7"}), NOBODY, pinned(1))).assignment["shared_cpus"] == ""


def test_a_node_that_does_not_divide_its_cpus_lets_guests_run_anywhere() -> None:
    assert placed(place(host(), NOBODY, shape())).assignment["shared_cpus"] is None


def test_a_cpu_that_another_has_alone_is_never_told_as_shared() -> None:
    occupancy = Occupancy({"pcpus": 1}, {3: SOMEONE})
    assert placed(place(host(), occupancy, shape())).assignment["shared_cpus"] == "0-2,4-7"


def test_a_resize_and_a_migration_tell_the_shared_cpus_of_where_the_guest_will_be() -> None:
    scene = Scene()
    scene.nodes("a", policy={"shared_cpus": "0-1", "dedicated_cpus": "2-3"})
    scene.nodes("b", policy={"shared_cpus": "0-2", "dedicated_cpus": "3"})
    small, large = ({"resources": {"vcpus": count, "memory_mib": 256}} for count in (1, 2))
    assert scene.claim("a", 1, **small)["assignment"]["shared_cpus"] == "0-1"
    resized = scene.applied("resize", "a", instance=uuid(1), mode="immediate", **large)
    assert resized["assignment"]["shared_cpus"] == "0-1"
    moved = scene.applied("migrate", "a", instance=uuid(1), destination="b", reason="cold")
    assert moved["assignment"]["shared_cpus"] == "0-2"


def test_a_device_is_told_with_its_type_its_cell_and_what_it_is_a_part_of() -> None:
    devices = [
        pci("0000:01:00.0", type="pf"),
        pci("0000:01:00.1", type="vf", parent="0000:01:00.0", cell=1),
        pci("0000:02:00.0", type="mdev", mdev_types={"small": 2}, cell=0),
    ]
    guest = shape(devices=[wanted("nic", type="vf"), wanted("gpu", type="mdev")])
    told: Any = placed(place(host(devices=devices), NOBODY, guest)).assignment["devices"]
    function, mediated = told
    assert function == {
        "name": "nic",
        "address": "0000:01:00.1",
        "type": "vf",
        "cell": 1,
        "parent": "0000:01:00.0",
    }
    assert mediated == {
        "name": "gpu",
        "address": "0000:02:00.0",
        "mdev_type": "small",
        "type": "mdev",
        "cell": 0,
        "parent": "0000:02:00.0",
    }
