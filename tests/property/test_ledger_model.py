from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.model.core import CoreLedger
from tests.model.machine import PARK_DEADLINE, LedgerMachine

LONG = os.environ.get("NODELEDGER_MODEL") == "long"


class CoreMachine(LedgerMachine):
    def new_ledger(self) -> CoreLedger:
        return CoreLedger(PARK_DEADLINE)


TestTheCore = CoreMachine.TestCase
TestTheCore.settings = settings(
    max_examples=1000 if LONG else 40,
    stateful_step_count=100 if LONG else 50,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
