"""How long the hardest decisions take. The figures are printed with ``pytest -m bench -s``."""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.property.demanding import Claimed, changed, claim, parsed, view
from worker.accounting.decide import decide

if TYPE_CHECKING:
    from worker.accounting.state.view import View

pytestmark = pytest.mark.bench

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RANDOM, CLIMBED, ATTEMPTS = 20_000, 500, 30
LIMIT_MS = 10.0


def deciding_ms(here: View, document: Claimed, *, times: int = 1) -> float:
    """Processor time of one decision, the least of some; 0 for what no worker would take."""
    command = parsed(document)
    if command is None:
        return 0.0
    found = []
    for _ in range(times):
        began = time.thread_time_ns()
        decide(here, command, NOW)
        found.append((time.thread_time_ns() - began) / 1e6)
    return min(found)


def climbed(rng: random.Random, here: View, document: Claimed, ms: float) -> float:
    """Change a claim again and again, keeping what makes it slower."""
    for _ in range(ATTEMPTS):
        other = changed(rng, document)
        if deciding_ms(here, other) > ms and (slower := deciding_ms(here, other, times=3)) > ms:
            document, ms = other, slower
    return ms


def report(name: str, found: list[float]) -> None:
    middle, worst = statistics.median(found), max(found)
    sys.stdout.write(f"{len(found)} {name}: median {middle:.2f} ms, worst {worst:.2f} ms (at most {LIMIT_MS:.0f})\n")


@pytest.mark.timeout(1800)  # some 100,000 decisions
def test_no_claim_takes_more_than_10_ms() -> None:
    rng, here = random.Random(1), view()
    documents = [claim(rng) for _ in range(RANDOM)]
    gc.collect()
    gc.disable()
    try:
        found = [deciding_ms(here, document) for document in documents]
        hardest = sorted(range(RANDOM), key=lambda number: found[number])[-CLIMBED:]
        for number in hardest:
            found[number] = deciding_ms(here, documents[number], times=3)
        hill = [climbed(rng, here, documents[number], found[number]) for number in hardest]
    finally:
        gc.enable()
    report("random claims", found)
    report("climbed claims", hill)
    assert max(hill) < LIMIT_MS
