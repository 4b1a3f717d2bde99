"""A worker's housekeeping: old rows leave the database now and then, as the settings say."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from worker.engine.ports import LedgerUnavailable
from worker.ledger.maintenance import Retention, keep_house
from worker.ledger.postgres import available
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    import asyncpg

    from worker.settings import Settings

_log = get_logger(__name__)

_EVERY_SECONDS: Final = 600.0
"""Retention counts in days, so that ten minutes more do not matter, and a portion of rows is soon gone."""


async def keep_house_now_and_then(pool: asyncpg.Pool, settings: Settings) -> None:
    """Let old rows go, forever. Trouble is told and left to the next time."""
    kept = retention(settings)
    while True:
        try:
            async with available():
                await keep_house(pool, kept)
        except LedgerUnavailable as trouble:
            _log.info("housekeeping waits for the database", error=str(trouble))
        await asyncio.sleep(_EVERY_SECONDS)


def retention(settings: Settings) -> Retention:
    """How long rows are kept; 0 days keep them forever."""

    def days(count: int) -> timedelta | None:
        return timedelta(days=count) if count else None

    return Retention(
        commands=days(settings.retention_command_days),
        tombstones=days(settings.retention_tombstone_days),
        dead_letters=days(settings.retention_dead_letter_days),
        entries=days(settings.retention_entry_days),
        drift=days(settings.retention_drift_days),
    )
