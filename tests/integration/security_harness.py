"""Waiting for what the ledger tells its readers."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.integration.cli_harness import DEADLINE_SECONDS
from tests.servers import Database


async def read_until(database: Database, query: str, *arguments: object) -> object:
    """What a query gives as soon as it gives something."""
    connection = await asyncpg.connect(database.reader_url)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (found := await connection.fetchval(query, *arguments)):  # noqa: ASYNC110 - the other side is another process
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
    return found
