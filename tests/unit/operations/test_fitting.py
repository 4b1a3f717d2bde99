from __future__ import annotations

import json
from uuid import UUID

from schemas.policy import Policy
from tests.unit.accounting.builders import host, pci
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Node
from worker.operations.fitting import Fit, Fitting, by_load, read_claim

ONE, OTHER = UUID(int=1), UUID(int=2)


def fitting(**claim: object) -> Fitting:
    return Fitting(read_claim(json.dumps({"resources": {"vcpus": 1, "memory_mib": 1024}, **claim}).encode())[0], 100)


def test_no_node_is_answered_with_what_another_one_has() -> None:
    fits = fitting()
    for times in range(1, 200):
        node = Node(f"n{times}", Policy(), Occupancy(), host=host(cpus="0-99", memory_mib=1024 * (times % 50)))
        assert fits.on(node).times == times % 50
        del node  # so that the next host may lie where this one lay


def test_a_reason_names_the_holders_on_its_own_node() -> None:
    here = host(devices=[pci("0000:01:00.0")])
    fits = fitting(devices=[{"name": "gpu", "match": [{}]}])
    for holder in (ONE, OTHER):
        found = fits.on(Node("n", Policy(), Occupancy(held={"0000:01:00.0": holder}), host=here))
        assert found.reasons[0].devices is not None
        assert found.reasons[0].devices[0]["held_by"] == str(holder)


def test_by_load_the_least_busy_host_that_could_take_it_comes_first_and_unknown_load_last() -> None:
    def one(name: str, times: int, busy: int | None) -> Fit:
        return Fit(name, times, False, [], None, busy)

    quiet, full, unknown, loud = one("a", 3, 10), one("b", 0, 0), one("c", 9, None), one("d", 9, 90)
    assert sorted([loud, unknown, full, quiet], key=by_load) == [quiet, loud, unknown, full]
