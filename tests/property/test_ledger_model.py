from __future__ import annotations

import pytest

from tests.model.core import CoreLedger
from tests.model.machine import PARK_DEADLINE, LedgerMachine
from tests.model.profiles import TIMEOUT_SECONDS, play


class CoreMachine(LedgerMachine):
    def new_ledger(self) -> CoreLedger:
        return CoreLedger(PARK_DEADLINE)


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_every_decision_is_what_the_model_says_and_nothing_leaks() -> None:
    play(CoreMachine, runs=80, steps=60, long_steps=100_000)
