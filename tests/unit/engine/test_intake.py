from __future__ import annotations

from typing import Any, cast

import pytest

from tests.property.test_messages import GOOD
from worker.engine import intake as intake_module
from worker.engine.dead_letters import DeadLetters
from worker.engine.intake import Intake
from worker.engine.lanes import Lanes
from worker.engine.ports import Delivery
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import Tracing


class UnreadableHeaders(dict[str, object]):
    """Headers whose every use fails, as nobody has thought of."""

    def get(self, *_: Any) -> Any:
        raise RecursionError("too deep")

    __len__ = __iter__ = get


class BrokenTracing(Tracing):
    """Tracing that begins no span."""

    def __init__(self) -> None:
        self.enabled = True  # type: ignore[misc]

    def begin(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no span")


async def reasons(delivery: Delivery, tracing: Tracing | None = None) -> list[tuple[str, str]]:
    """What becomes of a delivery that cannot be taken; a good one goes behind it."""
    lanes = Lanes()
    intake = Intake(lanes, 1, tracing)
    dead_letters = DeadLetters(cast("Any", None), lanes, Metrics())  # nothing is sent here
    intake.dead_letter_with(dead_letters)
    intake.receive(delivery)
    return [(letter.reason, letter.detail) for letter in dead_letters.waiting]


@pytest.mark.parametrize("body", [GOOD, b"{"])
async def test_a_message_whose_headers_make_the_code_fail_is_put_away_as_poison(body: bytes) -> None:
    ((reason, detail),) = await reasons(Delivery(0, body, 1, None, False, 0.0, headers=UnreadableHeaders()))
    assert reason == "poison"
    assert "RecursionError: too deep" in detail


async def test_a_message_that_makes_parsing_fail_is_put_away_as_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "parse_command", lambda body: body.nothing)
    ((reason, detail),) = await reasons(Delivery(0, GOOD, 1, None, False, 0.0))
    assert reason == "poison"
    assert "AttributeError" in detail


async def test_a_message_that_makes_tracing_fail_is_put_away_as_poison() -> None:
    ((reason, _),) = await reasons(Delivery(0, GOOD, 1, None, False, 0.0), BrokenTracing())
    assert reason == "poison"
