from __future__ import annotations

from tests.unit.accounting.builders import NOBODY, SOMEONE, cell, host, pci, two_cells
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.survey import pools, strays

CARD = pci("0000:3b:00.0", cell=0, mdev_types={"nvidia-35": 4})


def test_devices_are_pooled_by_what_tells_them_apart() -> None:
    devices = [pci("a", cell=0), pci("b", cell=0), pci("c", cell=1), pci("d", cell=0, tags={"net": "dc1"}), CARD]
    found = pools(host(devices=devices), Occupancy({"mdev/0000:3b:00.0/nvidia-35": 1}, held={"a": SOMEONE}))
    assert [(pool.type, pool.mdev_type, pool.cell, pool.tags, pool.total, pool.free) for pool in found] == [
        ("pci", None, 0, (), 3, 1),
        ("mdev", "nvidia-35", 0, (), 4, 3),
        ("pci", None, 1, (), 1, 1),
        ("pci", None, 0, (("net", "dc1"),), 1, 1),
    ]


def test_all_that_is_held_beyond_what_there_is_is_told() -> None:
    here = host({"dedicated_cpus": "4-7", "devices": [{"address": "b"}]}, devices=[pci("a"), pci("b")])
    occupancy = Occupancy(
        {"pcpus": 5, "mdev/x/t": 1, "CUSTOM_A": 1, "memory_mib": 1},
        {3: SOMEONE, 4: SOMEONE},
        {"a": SOMEONE, "b": SOMEONE, "c": SOMEONE},
    )
    assert [(stray.kind, stray.name, stray.holder) for stray in strays(here, occupancy)] == [
        ("cpu", "3", SOMEONE),
        ("device", "a", SOMEONE),
        ("device", "c", SOMEONE),
        ("amount", "CUSTOM_A", None),
        ("amount", "mdev/x/t", None),
        ("amount", "pcpus", None),
    ]


def test_large_pages_beyond_what_is_there_are_told_and_small_ones_are_overcommitted() -> None:
    pages = [{"size_kib": 4, "total": 10}, {"size_kib": 2048, "total": 10}]
    here = host(cells=[cell(0, "0-3", pages=pages)])
    used = Occupancy({"cell/0/pages/4": 11, "cell/0/pages/2048": 11})
    assert [stray.name for stray in strays(here, used)] == ["cell/0/pages/2048"]


def test_nothing_is_astray_where_all_is_as_it_was() -> None:
    assert strays(two_cells(), NOBODY) == []
    assert pools(two_cells(), NOBODY) == []
