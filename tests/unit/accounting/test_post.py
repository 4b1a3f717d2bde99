from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from schemas import Policy
from worker.accounting.post import BrokenInvariantError, DoubleUseError, post
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.lifecycle import Expire
from worker.accounting.state.instances import Holding, Instance
from worker.accounting.state.occupancy import Occupancy, Placement, Role
from worker.accounting.state.view import Node, View

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONE, TWO = UUID(int=1), UUID(int=2)
COMMAND = Expire(version=1, id=UUID(int=9), node="n", issued_at=NOW, instance=ONE)


def view() -> View:
    return View({name: Node(name, Policy(), Occupancy()) for name in ("n", "m")})


def held(charge: dict[str, int], *pins: int, node: str = "n", role: Role = "active", device: str = "") -> Holding:
    return Holding(node, role, "{}", Placement(charge, frozenset(pins), (device,) if device else ()), NOW)


def hold(where: View, instance: UUID, *holdings: Holding) -> list[dict[str, int]]:
    before = where.instances.get(instance, Instance(instance))
    decision = Decision("applied", "n", instances=(replace(before, holdings=holdings),))
    return [posting.deltas for posting in post(where, COMMAND, decision)]


def test_what_is_taken_is_given_back_exactly() -> None:
    ledger = view()
    assert hold(ledger, ONE, held({"vcpus": 3, "memory_mib": 7}, 1, 2, device="d")) == [{"vcpus": 3, "memory_mib": 7}]
    assert hold(ledger, ONE) == [{"vcpus": -3, "memory_mib": -7}]
    assert ledger.nodes["n"].occupancy == Occupancy()


def test_only_the_difference_is_posted_and_each_change_is_a_generation_of_its_node_alone() -> None:
    ledger = view()
    hold(ledger, ONE, held({"vcpus": 3, "disk_mib": 5}))
    assert hold(ledger, ONE, held({"vcpus": 4, "disk_mib": 5})) == [{"vcpus": 1}]
    assert hold(ledger, ONE, held({"vcpus": 4, "disk_mib": 5})) == []
    assert (ledger.nodes["n"].generation, ledger.nodes["m"].generation) == (2, 0)
    assert ledger.instances[ONE].version == 3


def test_both_sides_of_a_move_within_a_node_are_charged_as_the_larger_of_both() -> None:
    ledger = view()
    hold(ledger, ONE, held({"vcpus": 3, "memory_mib": 10}, role="move_source"))
    both = held({"vcpus": 3, "memory_mib": 10}, role="move_source"), held({"vcpus": 5}, role="move_destination")
    assert hold(ledger, ONE, *both) == [{"vcpus": 2}]
    assert hold(ledger, ONE, held({"vcpus": 5})) == [{"memory_mib": -10}]


def test_a_move_to_another_node_is_posted_on_both_in_one() -> None:
    ledger = view()
    hold(ledger, ONE, held({"vcpus": 3}, 1))
    assert hold(ledger, ONE, held({"vcpus": 3}, 1, node="m")) == [{"vcpus": -3}, {"vcpus": 3}]
    assert ledger.nodes["n"].occupancy == Occupancy()
    assert ledger.nodes["m"].occupancy.pinned == {1: ONE}


@pytest.mark.parametrize("mine", [held({}, 1), held({}, device="d")])
def test_a_cpu_or_a_device_that_another_holds_is_never_given(mine: Holding) -> None:
    ledger = view()
    hold(ledger, ONE, mine)
    with pytest.raises(DoubleUseError):
        hold(ledger, TWO, mine)


def test_what_goes_over_to_another_project_is_released_by_one_and_charged_to_the_other() -> None:
    ledger = view()
    hold(ledger, ONE, held({"vcpus": 1}, 1, role="orphan"))
    claimed = replace(ledger.instances[ONE], project="blue", holdings=(held({"vcpus": 3}, 1, 2),))
    postings = post(ledger, COMMAND, Decision("applied", "n", instances=(claimed,)))
    assert [(p.instance.project, p.deltas) for p in postings] == [(None, {"vcpus": -1}), ("blue", {"vcpus": 3})]
    assert [p.used_after for p in postings] == [{"vcpus": 0}, {"vcpus": 3}]
    assert ledger.nodes["n"].occupancy == Occupancy({"vcpus": 3}, {1: ONE, 2: ONE})


def test_a_change_of_cpus_alone_is_a_line_of_the_ledger_too() -> None:
    ledger = view()
    hold(ledger, ONE, held({"pcpus": 1}, 1))
    assert hold(ledger, ONE, held({"pcpus": 1}, 2)) == [{}]
    assert ledger.nodes["n"].occupancy.pinned == {2: ONE}


def test_use_never_falls_below_nothing() -> None:
    ledger = view()
    hold(ledger, ONE, held({"vcpus": 3}))
    ledger.nodes["n"].occupancy.used["vcpus"] = 2
    with pytest.raises(BrokenInvariantError, match="vcpus"):
        hold(ledger, ONE)


@pytest.mark.parametrize("holder", [None, TWO])
def test_nobody_gives_back_what_another_holds(holder: UUID | None) -> None:
    ledger = view()
    hold(ledger, ONE, held({}, 4))
    if holder is None:
        del ledger.nodes["n"].occupancy.pinned[4]
    else:
        ledger.nodes["n"].occupancy.pinned[4] = holder
    with pytest.raises(BrokenInvariantError, match="4"):
        hold(ledger, ONE)
