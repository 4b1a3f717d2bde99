"""How long the model is played.

``NODELEDGER_MODEL=long nice pytest -s tests/property/test_ledger_model.py``
plays 100,000 steps on the pure core and says how long it took; the same with
the other two files plays on Postgres and on a whole worker.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import LedgerMachine

LONG: Final = os.environ.get("NODELEDGER_MODEL") == "long"
_ALONE: Final = 2
"""Hypothesis begins with the simplest run there is, and then draws one."""
TIMEOUT_SECONDS: Final = 36_000 if LONG else 300


def play(machine: type[LedgerMachine], *, runs: int, steps: int, long_steps: int, repeatable: bool = True) -> None:
    """Play a number of runs of so many steps each; in the long profile until there were as many steps as it wants.

    What a real worker does at its own pace is not ``repeatable``: each run is
    then drawn by itself, for Hypothesis wants the same draws to lead to the same.
    """
    machine.steps = 0
    began = time.monotonic()
    together = (100 if LONG else runs) if repeatable else _ALONE
    profile = settings(
        max_examples=together,
        stateful_step_count=100 if LONG else steps,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    played = 0
    while played < runs or (LONG and machine.steps < long_steps):
        run_state_machine_as_test(machine, settings=profile)
        played += together
    seconds = time.monotonic() - began
    sys.stderr.write(f"{machine.__name__}: {machine.steps} steps in {seconds:.1f} s, {machine.steps / seconds:.0f}/s\n")
