"""The bench's own end of the database: what is counted there, and what is true of it at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from worker.errors import OperationError
from worker.ledger.installation import server
from worker.ledger.members import members_alive
from worker.ledger.statements import statement
from worker.ledger.verify import verify
from worker.operations.shards import stored_shards
from worker.servers import writing

if TYPE_CHECKING:
    import asyncpg

_ALIVE_SECONDS: Final = 5.0
# The statistics views lag by up to ten seconds; the next transaction's number does not.
_SETTLE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
_UNPUBLISHED: Final = "SELECT EXISTS (SELECT FROM nodeledger.outbox)"
_WRITTEN: Final = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
_TRANSACTIONS: Final = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


class Database:
    """Reads of the database that the settings name."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def commits(self) -> int:
        """Transactions so far that wrote something, by everybody on this server."""
        return int(await self._pool.fetchval(_TRANSACTIONS))

    async def written_bytes(self) -> int:
        """Bytes written ahead so far, by everybody on this server."""
        return int(await self._pool.fetchval(_WRITTEN))

    async def settled(self) -> None:
        """Wait until every published outcome is noted as such.

        A worker that is made to wait before that would publish them again.

        Raises:
            OperationError: that takes too long.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + _SETTLE_SECONDS
        while await self._pool.fetchval(_UNPUBLISHED):
            if clock() > deadline:
                raise OperationError(f"outcomes were not published within {_SETTLE_SECONDS:.0f} s")
            await asyncio.sleep(_POLL_SECONDS)

    async def shards(self) -> int:
        """How many shards the installation has."""
        return await stored_shards(self._pool)

    async def alive(self) -> list[str]:
        """The names of the workers that are alive."""
        return [member.name for member in await members_alive(self._pool, _ALIVE_SECONDS)]

    async def owners(self) -> int:
        """How many workers own a shard."""
        return len({row["owner"] for row in await self._pool.fetch(statement("shard_owners"))})

    async def differences(self) -> int:
        """How many contradictions the ledger holds."""
        return len([found async for found in verify(self._pool)])

    async def server(self) -> dict[str, Any]:
        """How the server is set where it matters for durability."""
        found = asdict(await server(self._pool))
        return {name: found[name] for name in ("version", "fsync", "synchronous_commit", "full_page_writes")}


@asynccontextmanager
async def connected() -> AsyncIterator[Database]:
    """The database in the worker's role.

    Raises:
        UnreachableError: it cannot be reached.
    """
    async with writing() as pool:
        yield Database(pool)
