"""No claim, however made, is more work than a decision may be: counted, not timed, so that no machine is too slow."""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Self
from uuid import UUID

import pytest

from tests.property.demanding import changed, claim, parsed, view
from tests.unit.accounting.builders import NOBODY, cell, host, pci, refused, shape, wanted
from worker.accounting import work
from worker.accounting.decide import decide
from worker.accounting.placing.place import place
from worker.accounting.rules import claims
from worker.accounting.rules.decision import Decision

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LINES = 100_000
"""Lines of the rules that a decision may run through; what loops without being charged for it soon takes more."""


class Lines:
    """Counts the lines of the rules that are run through."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Any:
        if "accounting" not in frame.f_code.co_filename:
            return None
        self.count += event == "line"
        return self

    def __enter__(self) -> Self:
        self.before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)


@pytest.mark.parametrize("seed", range(60))
def test_a_claim_takes_no_more_steps_than_a_decision_may(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    document = claim(rng)
    for _ in range(rng.choice([0, 10, 40])):
        document = changed(rng, document)
    command = parsed(document)
    if command is None:
        return
    done: list[Counted] = []

    class Counted(work.Work):
        """Keeps what was allowed: steps that are refused are not taken."""

        def __init__(self, steps: int = work.SEARCH_STEPS, most: int = work.MOST_REASONS) -> None:
            super().__init__(steps, most)
            self.taken = 0
            done.append(self)

        def spend(self, steps: int) -> None:
            super().spend(steps)
            self.taken += steps

    monkeypatch.setattr(work, "Work", Counted)
    monkeypatch.setattr(claims, "Work", Counted)
    with Lines() as lines:
        decision = decide(view(), command, NOW)
    assert lines.count <= LINES
    assert len(done) <= 2, "all members and candidates share one bound"
    assert sum(one.taken for one in done) <= work.SEARCH_STEPS + work.REASON_STEPS
    assert isinstance(decision, Decision)
    too_complex = [reason for reason in decision.reasons if reason.code == "too_complex"]
    assert bool(too_complex) == done[0].exhausted
    assert decide(view(), command, NOW) == decision, "the bound does not depend on the machine"


def test_what_is_too_complex_to_tell_is_refused_without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [pci(f"0000:0{number}:00.0", cell=0) for number in range(4)]
    here = host(cells=[cell(0, "0-3")], devices=devices)
    wish = shape(devices=[wanted(count=6)])
    assert refused(place(here, NOBODY, wish))[0].short_by == 2
    monkeypatch.setattr(work, "REASON_STEPS", 2)
    (reason,) = refused(place(here, NOBODY, wish))
    assert (reason.code, reason.short_by, reason.capacity) == ("no_device_fit", None, None)
    (reason,) = refused(place(here, NOBODY, shape(topology={"cells": 1, "page_size": 2048})))
    assert (reason.code, reason.short_by, reason.cells) == ("no_numa_fit", None, None)


def test_a_bound_that_is_met_says_what_to_ask_for_instead() -> None:
    here = host(devices=[pci("0000:01:00.0")])
    (reason,) = refused(place(here, NOBODY, shape(devices=[wanted(match=[{"address": "*"}])]), work=work.Work(10)))
    assert (reason.code, reason.short_by) == ("too_complex", None)
    assert "fewer" in reason.detail


def test_candidates_after_the_bound_are_not_looked_at() -> None:
    document = claim(random.Random(1))
    document.pop("instances", None)
    document |= {
        "node": "n6",
        "instance": str(UUID(int=8)),
        "candidates": [f"n{number}" for number in range(10)],
        "resources": {"vcpus": 1, "memory_mib": 1},
        "topology": None,
        "devices": [wanted(f"d{n}", match=[{"address": f"*{n}?{m}*"} for m in range(64)]) for n in range(4)],
    }
    command = parsed(document)
    assert command is not None
    decision = decide(view(), command, NOW)
    assert isinstance(decision, Decision)
    assert [(reason.code, reason.node) for reason in decision.reasons] == [("too_complex", "n6")]
