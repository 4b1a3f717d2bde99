from __future__ import annotations

from dataclasses import MISSING, fields
from datetime import timedelta

import pytest

from worker.housekeeping import retention
from worker.ledger.maintenance import Retention
from worker.settings import Settings

SETTINGS = {
    "commands": "retention_command_days",
    "tombstones": "retention_tombstone_days",
    "dead_letters": "retention_dead_letter_days",
    "entries": "retention_entry_days",
    "drift": "retention_drift_days",
}


def test_how_long_rows_are_kept_is_said_by_the_settings_alone() -> None:
    assert {one.name for one in fields(Retention)} == SETTINGS.keys()
    assert all(one.default is MISSING for one in fields(Retention))
    kept = retention(Settings())
    for name, setting in SETTINGS.items():
        assert getattr(kept, name) == timedelta(days=Settings.model_fields[setting].default), name


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_with_a_retention_of_0_days_are_kept_forever(name: str) -> None:
    given = dict.fromkeys(SETTINGS.values(), 7) | {SETTINGS[name]: 0}
    if name == "commands":
        given[SETTINGS["tombstones"]] = 0  # tombstones are not forgotten before the commands they answer
    assert getattr(retention(Settings.model_validate(given)), name) is None
