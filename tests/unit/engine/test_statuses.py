"""What may move a command from one state to another, and that every other end of a copy is the copy's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from schemas import Policy
from schemas.outcomes import Status
from tests.model.scene import Scene, asks, uuid
from tests.unit.engine.test_parked_order import parked
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Facts, Node, View
from worker.engine.batch import Decider
from worker.engine.intake import Item
from worker.engine.ports import Delivery, Known, ReadSet
from worker.engine.result import Result
from worker.engine.statuses import FINAL, may_move

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STATUSES: tuple[Status, ...] = ("applied", "rejected", "parked", "dead")


def decide(item: Item, status: Status | None) -> Result:
    """What comes of an item whose command is in this state."""
    node = Node("cn-1", Policy(), Occupancy(), hypervisor="test:///default", id=1, parked=status == "parked")
    known = {} if status is None else {item.command.id: Known(item.fingerprint, status, "claim", "cn-1", "{}")}
    return Decider(ReadSet(View({"cn-1": node}), known, NOW), Facts(), 0.0, timedelta(days=1), lambda _: None).run(
        [item]
    )


def message(*, dead_lettered: str | None = None, redelivered: bool = False) -> Item:
    """A delete that nothing holds up, or a copy of it that is safe in the dead letters."""
    row = parked("delete", 1, verify=False)
    assert row.parked is not None
    delivery = Delivery(0, row.parked.body, 1, None, redelivered, 0.0)
    return Item(row.command, row.fingerprint, delivery, dead_lettered=(dead_lettered, "") if dead_lettered else None)


def written(result: Result) -> list[str]:
    return [answer.status for answer in result.changes.answers]


@pytest.mark.parametrize("reason", ["misrouted", "poison"])
@pytest.mark.parametrize("status", ["applied", "rejected", "parked"])
def test_a_copy_that_is_dead_lettered_settles_itself_alone(reason: str, status: Status) -> None:
    copy = message(dead_lettered=reason, redelivered=True)
    result = decide(copy, status)
    assert (result.done, written(result), result.outcomes) == ([copy], [], [])
    assert not result.changes.unparked
    assert result.changes.tried == [copy.command.id], "what a copy was charged with is not the command's"


@pytest.mark.parametrize("status", [None, "dead"])
def test_a_message_that_is_dead_lettered_alone_is_recorded_and_settles_no_letter(status: Status | None) -> None:
    result = decide(message(dead_lettered="misrouted"), status)
    assert (written(result), result.changes.revived) == (["dead"], [])


def test_a_replay_settles_its_letter_once_it_is_applied_and_not_when_it_is_parked() -> None:
    replay = message()
    result = decide(replay, "dead")
    assert (written(result), result.changes.revived) == (["applied"], [replay.command.id])
    held_up = decide_behind_others(message())
    assert (written(held_up), held_up.changes.revived) == (["parked"], [])


def decide_behind_others(item: Item) -> Result:
    node = Node("cn-1", Policy(), Occupancy(), hypervisor="test:///default", id=1, parked=1)
    known = {item.command.id: Known(item.fingerprint, "dead", "delete", "cn-1", "{}")}
    return Decider(ReadSet(View({"cn-1": node}), known, NOW), Facts(), 0.0, timedelta(days=1), lambda _: None).run(
        [item]
    )


def test_what_comes_back_from_its_wait_settles_the_letter_of_a_copy() -> None:
    row = parked("delete", 1, verify=False)
    result = decide(row, "parked")
    assert (written(result), result.changes.revived) == (["applied"], [row.command.id])


@pytest.mark.parametrize("status", ["dead", "applied", "rejected"])
def test_a_row_whose_command_waits_no_more_changes_nothing(status: Status) -> None:
    row = parked("delete", 1, verify=False)
    result = decide(row, status)
    assert (result.done, written(result), result.changes.unparked) == ([row], [], {})


def test_nothing_moves_what_is_applied_or_rejected() -> None:
    assert sorted(FINAL) == ["applied", "rejected"]
    assert [(status, may_move(status, "message"), may_move(status, "parked row")) for status in STATUSES] == [
        ("applied", False, False),
        ("rejected", False, False),
        ("parked", False, True),
        ("dead", True, False),
    ]


def waiting() -> tuple[Scene, str]:
    """A claim that waits for its hypervisor."""
    scene = Scene()
    scene.hypervisor("n")
    scene.world.silent.add("n")
    claim = scene.send("claim", "n", instance=uuid(1), project="blue", **asks())
    scene.work()
    assert scene.status(claim) == "parked"
    return scene, claim


def test_a_parked_command_is_applied_whatever_became_of_its_copy_on_another_shard() -> None:
    scene, claim = waiting()
    scene.path.misroute(scene.path.sent[-1])
    scene.work()
    assert scene.status(claim) == "parked"
    scene.world.silent.clear()
    scene.probe("n")
    assert scene.status(claim) == "applied"


def test_the_same_misrouted_twice_is_dead_until_it_comes_where_it_belongs() -> None:
    scene = Scene()
    scene.nodes("n")
    command: dict[str, Any] = {"version": 1, "id": uuid(9), "kind": "delete", "node": "n", "instance": uuid(1)}
    body = json.dumps({**command, "issued_at": "2026-01-01T00:00:00Z"}).encode()
    for _ in range(2):
        scene.path.misroute(body)
        scene.work()
        assert scene.status(uuid(9)) == "dead"
    scene.path.replay(0)
    scene.work()
    assert scene.status(uuid(9)) == "applied"


def test_a_node_that_is_removed_and_put_again_counts_what_still_waits() -> None:
    scene, claim = waiting()
    scene.applied("node.remove", "n", force=True)
    scene.path.probe("n", None)
    put = scene.send("node.put", "n", inventory={"cpus": "0-3", "memory_mib": 8704})
    assert scene.work(put, claim)[0]["status"] == "applied"
    assert scene.status(claim) == "rejected"
    assert scene.ledger.nodes["n"].parked == 0


def test_a_node_that_is_put_again_holds_back_what_came_after_what_is_parked_for_it() -> None:
    scene, claim = waiting()
    scene.applied("node.remove", "n", force=True)
    put = scene.send("node.put", "n", inventory={"cpus": "0-3", "memory_mib": 8704})
    later = scene.send("claim", "n", instance=uuid(2), project="blue", **asks())
    outcomes = scene.work(put, later)
    assert [outcome["status"] for outcome in outcomes] == ["applied", "parked"]
    scene.probe("n")
    assert (scene.status(claim), scene.status(later)) == ("applied", "applied")
    assert UUID(later) in scene.ledger.known
