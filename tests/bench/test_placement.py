"""How long one decision takes, on one core. The figures are printed with ``pytest -m bench -s``."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.unit.accounting.builders import cell, host, pci, pinned, placed, shape, wanted
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.commands import Shape
    from worker.accounting.host.compiled import Host

pytestmark = pytest.mark.bench

NOBODY = Occupancy()


def median_us(call: Callable[[], object], *, rounds: int = 301, batch: int = 5) -> float:
    """The median time of a call in microseconds, without what others took of the processor meanwhile."""
    for _ in range(20):
        call()
    gc.collect()
    gc.disable()
    try:
        times = []
        for _ in range(rounds):
            begin = time.thread_time_ns()
            for _ in range(batch):
                call()
            times.append((time.thread_time_ns() - begin) / batch / 1000)
    finally:
        gc.enable()
    return statistics.median(times)


def report(name: str, figure: float, limit: float) -> None:
    sys.stdout.write(f"{name}: {figure:.1f} us (at most {limit:.0f})\n")
    assert figure < limit


def eight_cells() -> Host:
    pages = [{"size_kib": 4, "total": 2**22}, {"size_kib": 2048, "total": 2**13}]
    cells: list[dict[str, Any]] = [
        cell(
            number,
            f"{number * 16}-{number * 16 + 15}",
            [f"{first},{first + 8}" for first in range(number * 16, number * 16 + 8)],
            socket=number // 4,
            pages=pages,
        )
        for number in range(8)
    ]
    cells = [{**one, "memory_mib": 65536} for one in cells]
    policy = {"shared_cpus": "0-1", "dedicated_cpus": "2-127"}
    return host(policy, cpus="0-127", memory_mib=8 * 65536, cells=cells)


def crowded(cells: int) -> tuple[Host, Occupancy]:
    """256 CPUs, 200 instances with a CPU each."""
    width = 256 // cells
    layout: list[dict[str, Any]] = [
        cell(
            number,
            f"{number * width}-{(number + 1) * width - 1}",
            [f"{first},{first + width // 2}" for first in range(number * width, number * width + width // 2)],
        )
        for number in range(cells)
    ]
    layout = [{**one, "memory_mib": 2**20} for one in layout]
    here = host({"dedicated_cpus": "0-255"}, cpus="0-255", memory_mib=2**22, cells=layout)
    occupancy = NOBODY
    for number in range(200):
        occupancy = beside(occupancy, UUID(int=number), placed(place(here, occupancy, pinned(1))))
    return here, occupancy


def test_a_shared_claim_takes_less_than_30_us() -> None:
    here, wish = host(memory_mib=2**20, disk_gib=1000), shape(4, 4096, resources={"disk": {"root_gib": 20}})
    placed(place(here, NOBODY, wish))
    report("shared claim", median_us(lambda: place(here, NOBODY, wish), batch=100), 30)


@pytest.mark.parametrize("thread_policy", [None, "require"])
def test_four_pinned_cells_on_eight_take_less_than_1_ms(thread_policy: str | None) -> None:
    here = eight_cells()
    wish = pinned(16, 16384, cells=4, page_size="large", thread_policy=thread_policy, emulator_threads="isolate")
    assert len(placed(place(here, NOBODY, wish)).pins) == 17
    report(f"four cells of eight, {thread_policy}", median_us(lambda: place(here, NOBODY, wish)), 1000)


@pytest.mark.parametrize("cells", [1, 4])
def test_a_pinned_cell_among_200_instances_on_256_cpus_takes_less_than_1_ms(cells: int) -> None:
    here, occupancy = crowded(cells)
    wish = pinned(8)
    placed(place(here, occupancy, wish))
    report(f"one cell, 256 CPUs in {cells}, 200 instances", median_us(lambda: place(here, occupancy, wish)), 1000)


def gpus(*matches: list[dict[str, Any]]) -> tuple[Host, Shape]:
    devices = [pci(f"0000:0{number}:00.0", cell=number // 4) for number in range(8)]
    here = host(cells=[cell(0, "0-3"), cell(1, "4-7")], devices=devices)
    return here, shape(devices=[wanted(f"gpu{number}", match=match) for number, match in enumerate(matches)])


def test_eight_devices_one_by_one_take_less_than_1_ms() -> None:
    here, wish = gpus(*[[{"vendor": "10de"}]] * 8)
    assert len(placed(place(here, NOBODY, wish)).devices) == 8
    report("eight devices alike", median_us(lambda: place(here, NOBODY, wish)), 1000)


def test_eight_devices_that_must_give_way_to_each_other_take_less_than_1_ms() -> None:
    here, wish = gpus(*([{"address": f"0000:0{other}:00.0"} for other in range(8 - number)] for number in range(8)))
    assert len(placed(place(here, NOBODY, wish)).devices) == 8
    report("eight devices giving way", median_us(lambda: place(here, NOBODY, wish)), 1000)


def test_cost_does_not_grow_with_the_number_of_instances() -> None:
    here = host({"ratios": {"vcpus": "1000"}}, memory_mib=2**30, disk_gib=2**20)
    wish = shape(1, 16, topology={"cells": None})
    few = many = beside(NOBODY, UUID(int=0), placed(place(here, NOBODY, wish)))
    for number in range(1, 5000):
        many = beside(many, UUID(int=number), placed(place(here, many, wish)))
    sparse, dense = (median_us(partial(place, here, state, wish), batch=50) for state in (few, many))
    sys.stdout.write(f"one instance: {sparse:.1f} us, 5000 instances: {dense:.1f} us\n")
    assert dense < 2 * sparse
