"""A refusal tells every reason: cells, networks and devices each for itself."""

from __future__ import annotations

from tests.unit.accounting.builders import NOBODY, cell, codes, host, refused, shape, wanted
from worker.accounting.placing.place import place

APART = [cell(0, "0-3", physnets=["a"]), cell(1, "4-7", physnets=["b"])]
DEVICES = [wanted()]


def test_a_guest_with_more_cells_than_the_host_is_told_of_missing_devices_too() -> None:
    guest = shape(3, 1536, topology={"cells": 3}, devices=DEVICES)
    assert codes(place(host(cells=APART), NOBODY, guest)) == ["no_numa_fit", "no_device_fit"]


def test_networks_out_of_reach_hide_no_missing_devices() -> None:
    networks = {"physnets": ["a", "b"]}
    guest = shape(1, topology={"cells": 1, "networks": networks}, devices=DEVICES)
    reasons = refused(place(host(cells=APART), NOBODY, guest))
    assert [reason.resource for reason in reasons] == ["networks", "gpu"]


def test_cells_without_room_hide_neither_networks_nor_devices() -> None:
    networks = {"physnets": ["a", "b"]}
    guest = shape(1, 8704, topology={"cells": 1, "networks": networks}, devices=DEVICES)
    reasons = refused(place(host(cells=APART), NOBODY, guest))
    assert [reason.resource for reason in reasons] == ["cells", "networks", "gpu"]


def test_what_is_there_is_not_told_as_missing() -> None:
    guest = shape(1, 8704, topology={"cells": 1, "networks": {"physnets": ["a"]}})
    assert [reason.resource for reason in refused(place(host(cells=APART), NOBODY, guest))] == ["cells"]
