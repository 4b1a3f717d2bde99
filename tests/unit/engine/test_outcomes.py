"""What is written as an outcome is what the schema says: no field less typed, and none besides."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

import pytest
from jsonschema import ValidationError

from schemas import DeadReason, Outcome
from schemas.routing import OUTCOME_EXCHANGE
from tests.model.scene import PARK_DEADLINE, Scene, asks, uuid
from tests.published import published
from worker.accounting.answers import Document
from worker.engine.outcomes import Rendered, dead_answer, messages, sequence_of
from worker.engine.ports import DeadLetter, Reply

NOW = datetime(2026, 11, 22, 7, tzinfo=UTC)


def test_the_fields_that_are_written_are_those_of_the_model() -> None:
    assert set(Document.__annotations__) == set(Outcome.model_fields)
    optional = {name for name in Document.__optional_keys__ if not Outcome.model_fields[name].is_required()}
    assert optional == Document.__optional_keys__


@pytest.mark.parametrize("reason", get_args(DeadReason))
def test_the_answer_to_what_is_no_command_is_as_published(reason: str) -> None:
    letter = DeadLetter(b"{", reason, "why", UUID(int=7), None, None)
    (answer,) = dead_answer(letter, Reply("somebody", "c"), NOW)
    assert published(answer.body)["dead_letter"] == {"reason": reason, "detail": "why"}


def test_an_outcome_with_a_field_outside_of_the_schema_is_found_wherever_the_field_is() -> None:
    scene = Scene()
    scene.nodes("n")
    done = scene.applied("node.remove", "n")
    for astray in ({**done, "unheard_of": 1}, {**done, "usage": {"vcpus": {"used": 0, "capacity": 0, "spare": 0}}}):
        with pytest.raises(ValidationError):
            published(json.dumps(astray))
    with pytest.raises(AssertionError, match="only a dead outcome"):
        published(json.dumps({**done, "dead_letter": {"reason": "poison", "detail": ""}}))


def test_a_reader_can_tell_which_outcome_of_a_command_came_last() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.world.silent.add("n")
    scene.pass_time(3600)
    waiting = scene.send("claim", "n", instance=uuid(1), project="p", **asks())
    (parked,) = scene.work(waiting)
    scene.pass_time(2 * PARK_DEADLINE)
    scene.probe("n")
    dead = json.loads(scene.path.bench.outcomes[waiting])
    scene.world.silent.clear()
    scene.path.replay(0)
    (applied,) = scene.work(waiting)
    told = [(one["status"], one["sequence"]) for one in (parked, dead, applied)]
    assert told == [("parked", 1), ("dead", 2), ("applied", 3)]


def test_the_answer_to_what_never_became_a_command_is_before_all_of_its_outcomes() -> None:
    (answer,) = dead_answer(DeadLetter(b"{", "malformed", "why", UUID(int=7), None, None), Reply("somebody", "c"), NOW)
    assert json.loads(answer.body)["sequence"] == 0


def test_an_outcome_from_before_they_were_counted_was_the_first() -> None:
    assert sequence_of('{"status": "parked"}') == 1


@pytest.mark.parametrize("queue", ["nodeledger.commands.00", "nodeledger.dead", "nodeledger.anything"])
def test_no_copy_of_an_answer_is_made_for_a_queue_of_the_products_own(queue: str) -> None:
    rendered = Rendered("claim", "applied", "cn-1", "{}")
    assert [sent.exchange for sent in messages(rendered, "id", Reply(queue))] == [OUTCOME_EXCHANGE]
    assert [sent.routing_key for sent in messages(rendered, "id", Reply("theirs"))][:1] == ["theirs"]
