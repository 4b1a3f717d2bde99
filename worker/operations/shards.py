"""How many shards the installation has."""

from __future__ import annotations

from contextlib import suppress

import asyncpg

from worker.errors import SettingsError, UnreachableError
from worker.ledger.installation import installation
from worker.servers import writing
from worker.settings import load_settings


async def shards() -> int:
    """As the database says where one is configured and answers, and as the setting says otherwise."""
    settings = load_settings()
    if settings.database_url is not None:
        with suppress(UnreachableError, SettingsError):
            async with writing() as pool:
                return await stored_shards(pool)
    return settings.shards


async def stored_shards(pool: asyncpg.Pool) -> int:
    """As the database says; the setting before the first worker has started."""
    with suppress(asyncpg.UndefinedTableError):
        found = await installation(pool)
        if found is not None:
            return found.shards
    return load_settings().shards
