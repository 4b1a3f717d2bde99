"""What is left of a guest beside its dedicated CPUs: shared vCPUs, and memory in small pages."""

from __future__ import annotations

from tests.unit.accounting.builders import cells_of, codes, pinned, placed, shape, two_cells
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy

SPLIT = {"shared_cpus": "0-1,4-5", "dedicated_cpus": "2-3,6-7"}
SMALL, LARGE = {"size_kib": 4, "total": 262144}, {"size_kib": 2048, "total": 1024}


def test_a_cell_of_a_mixed_guest_needs_no_dedicated_vcpu() -> None:
    here = two_cells(SPLIT)
    guest = shape(4, topology={"cpu_policy": "mixed", "dedicated_vcpus": "0-1", "cells": 2})
    placement = placed(place(here, Occupancy(), guest))
    assert [sorted(cell["pins"]) for cell in cells_of(placement)] == [["0", "1"], []]
    assert [cell["shared_vcpus"] for cell in cells_of(placement)] == ["", "2-3"]


def test_a_pinned_guest_without_a_page_size_has_its_memory_in_small_pages() -> None:
    here = two_cells(pages=[SMALL, LARGE])
    charge = placed(place(here, Occupancy(), pinned(1, 1024))).charge
    assert charge["cell/0/pages/4"] == 262144
    assert codes(place(here, Occupancy(), pinned(1, 1025))) == ["no_numa_fit"]
