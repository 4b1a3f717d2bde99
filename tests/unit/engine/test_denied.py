"""What the rules refuse: its sender is told, and nobody else's command, letter or node is touched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic_core import from_json

from schemas import Policy
from schemas.outcomes import Status
from tests.unit.accounting.builders import host
from tests.unit.engine.test_parked_order import parked
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Facts, Node, View
from worker.engine.batch import Decider
from worker.engine.intake import Item
from worker.engine.permissions import Permissions
from worker.engine.ports import Delivery, Known, ReadSet
from worker.engine.result import Result
from worker.permission_rules import PermissionRule

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Permissions([PermissionRule(users=("root",))])
EVERYTHING = Permissions([PermissionRule(users=("bob",))])


def message(dead_lettered: tuple[str, str] | None = None, *, redelivered: bool = False) -> Item:
    row = parked("delete", 1, verify=False)
    assert row.parked is not None
    delivery = Delivery(0, row.parked.body, 1, None, redelivered, 0.0, user_id="bob")
    return Item(row.command, row.fingerprint, delivery, dead_lettered=dead_lettered)


def decide(item: Item, permissions: Permissions = NOTHING, status: Status | None = None) -> Result:
    node = Node("cn-1", Policy(), Occupancy(), hypervisor="test:///default", id=1, host=host())
    known = {} if status is None else {item.command.id: Known(item.fingerprint, status, "delete", "cn-1", "{}")}
    loaded = ReadSet(View({"cn-1": node}), known, NOW)
    return Decider(loaded, Facts(), 0.0, timedelta(days=1), lambda _: None, permissions).run([item])


@pytest.mark.parametrize("status", [None, "dead"])
@pytest.mark.parametrize("dead_lettered", [None, ("misrouted", "elsewhere"), ("poison", "trace")])
def test_what_the_rules_refuse_is_answered_and_leaves_nothing_under_its_id(
    dead_lettered: tuple[str, str] | None, status: Status | None
) -> None:
    item = message(dead_lettered, redelivered=True)
    result = decide(item, status=status)
    changes = result.changes
    assert (changes.answers, changes.revived, changes.parked, changes.postings) == ([], [], [], [])
    assert changes.tried == [item.command.id]
    ((_, told),) = result.outcomes
    assert told.status == ("rejected" if dead_lettered is None else "dead")
    assert from_json(told.text)["usage"] == {}
    assert (result.done, result.settled()) == ([item], []), "it is acknowledged once its answer is out"


def test_the_same_id_is_free_for_who_may_send_it() -> None:
    item = message()
    result = decide(item, EVERYTHING)
    assert [answer.command for answer in result.changes.answers] == [item.command.id]


def test_a_parked_command_that_the_rules_refuse_at_its_turn_is_recorded() -> None:
    row = parked("delete", 1, verify=False)
    result = decide(row, status="parked")
    assert [(answer.status, answer.codes) for answer in result.changes.answers] == [("rejected", ("not_permitted",))]
    assert list(result.changes.unparked) == [row.command.id]


def test_whose_id_was_used_before_is_told_to_nobody_else() -> None:
    item = message()
    loaded = ReadSet(View({}), {item.command.id: Known(item.command.id, "applied", "claim", "secret", "{}")}, NOW)
    result = Decider(loaded, Facts(), 0.0, timedelta(days=1), lambda _: None).run([item])
    ((_, reason, detail),) = result.dead_lettered
    assert reason == "id_reuse"
    assert "secret" not in detail
    assert "claim" not in detail
