from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from schemas import Audit, Policy
from tests.unit.accounting.test_drift import running
from worker.accounting.decide import decide
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.looks import Look
from worker.accounting.state.instances import Holding, Instance
from worker.accounting.state.occupancy import Occupancy, Placement
from worker.accounting.state.view import Facts, Node, Question, Sight, View

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ADDRESS = "test:///default"
STRANGER = UUID(int=5)
LOOK = Look(version=1, id=UUID(int=1), node="cn-1", issued_at=NOW)


def seen(sight: Sight | None, *, generation: int = 7, parked: int = 0, hypervisor: str | None = ADDRESS) -> View:
    node = Node("cn-1", Policy(), Occupancy(), generation=generation, hypervisor=hypervisor, parked=parked)
    return View({"cn-1": node}, facts=Facts(sights={} if sight is None else {"cn-1": sight}))


def looked(view: View) -> Decision:
    decision = decide(view, LOOK, NOW)
    assert isinstance(decision, Decision)
    return decision


RUNNING = [running(STRANGER)]


def test_a_look_finds_what_an_audit_would() -> None:
    (found,) = looked(seen(Sight(7, ADDRESS, RUNNING))).drift or ()
    assert (found["kind"], found["instance"]) == ("orphan", STRANGER)


@pytest.mark.parametrize(
    "sight", [None, Sight(6, ADDRESS, RUNNING), Sight(7, "test:///other", RUNNING)], ids=["none", "older", "elsewhere"]
)
def test_what_was_listed_before_something_changed_is_asked_again_in_the_order_of_the_node(sight: Sight | None) -> None:
    asked = Question(listings=frozenset({"cn-1"}), inventories=frozenset({"cn-1"}))
    assert decide(seen(sight), LOOK, NOW) == asked


def test_a_host_that_does_not_answer_tells_nothing() -> None:
    assert looked(seen(Sight(7, ADDRESS, None))).drift is None
    unanswered = seen(None)
    unanswered.facts.listings["cn-1"] = None
    assert looked(unanswered).drift is None


def test_a_node_whose_commands_wait_is_not_compared_with_what_they_have_yet_to_change() -> None:
    assert looked(seen(Sight(7, ADDRESS, RUNNING), parked=1)).drift is None


def test_a_node_that_is_gone_or_has_no_hypervisor_any_more_is_left_alone() -> None:
    assert looked(View()).drift is None
    assert looked(seen(Sight(7, ADDRESS, RUNNING), hypervisor=None)).drift is None


def claimed(age: timedelta, *, state: str | None = None, lease: timedelta | None = None) -> View:
    placement = Placement({"vcpus": 1})
    expires = None if lease is None else NOW + lease
    held = Holding("cn-1", "active", '{"resources":{"vcpus":1,"memory_mib":1}}', placement, NOW - age, expires)
    view = seen(Sight(7, ADDRESS, []))
    view.instances = {STRANGER: Instance(STRANGER, state=state, holdings=(held,))}
    return view


SOON, LONG = timedelta(seconds=5), timedelta(hours=1)


@pytest.mark.parametrize(
    ("view", "found"),
    [
        (claimed(SOON), (False, True)),
        (claimed(LONG), (True, False)),
        (claimed(timedelta(minutes=5), state="building"), (False, False)),
        (claimed(LONG, state="building"), (True, False)),
        (claimed(LONG, lease=LONG), (False, False)),
        (claimed(LONG, lease=-LONG), (True, False)),
    ],
    ids=["just claimed", "long ago", "being built", "built for too long", "leased", "lease ran out"],
)
def test_a_guest_that_nobody_could_have_started_yet_is_no_ghost(view: View, found: tuple[bool, bool]) -> None:
    decision = looked(view)
    assert (bool(decision.drift), decision.look_again) == found
    assert decision.passed_over == (frozenset() if decision.drift else {("ghost", STRANGER)})
    audited = decide(
        replace(view, facts=Facts(listings={"cn-1": []})),
        Audit(version=1, id=UUID(int=2), kind="audit", node="cn-1", issued_at=NOW),
        NOW,
    )
    assert isinstance(audited, Decision)
    assert audited.drift, "an audit that somebody asks for tells how things are"
