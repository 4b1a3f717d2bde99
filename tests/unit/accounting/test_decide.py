from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from schemas import KINDS, parse_command
from schemas.commands import MODELS, Confirm
from schemas.examples import COMMANDS
from tests.reference.rules import RULINGS
from worker.accounting.decide import decide, every_kind
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.moves import confirm
from worker.accounting.state.view import Question, View

NOW = datetime(2026, 11, 22, 7, tzinfo=UTC)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_example_of_every_kind_is_decided(kind: str) -> None:
    assert isinstance(decide(View(), parse_command(json.dumps(COMMANDS[kind]).encode()), NOW), Decision | Question)


def test_a_kind_without_a_rule_is_an_error_when_the_rules_are_imported() -> None:
    with pytest.raises(TypeError, match=r"no rule decides .*audit.*update"):
        every_kind({Confirm: confirm})
    with pytest.raises(TypeError, match=r"^no rule decides conjure$"):
        every_kind({Confirm: confirm}, {"confirm": Confirm, "conjure": int})


def test_the_models_rules_and_examples_know_the_same_kinds() -> None:
    assert set(COMMANDS) == KINDS == set(MODELS)
    assert set(RULINGS) >= KINDS
