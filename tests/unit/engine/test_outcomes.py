"""What is written as an outcome is what the schema says: no field less typed, and none besides."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

import pytest
from jsonschema import ValidationError

from schemas import DeadReason, Outcome
from tests.model.scene import Scene
from tests.published import published
from worker.accounting.answers import Document
from worker.engine.outcomes import dead_answer
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
