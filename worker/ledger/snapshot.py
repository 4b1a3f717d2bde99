"""One moment of the ledger, for dry runs: nothing is locked, and nothing can be written."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from worker.engine.ports import LedgerConflict
from worker.ledger.nodes import NodeCache
from worker.ledger.store import StoreTransaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from worker.engine.ports import ReadKeys, ReadSet
    from worker.ledger.statements import Connection


class Snapshot:
    """Reads what commands would touch, as it was when the snapshot was taken."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def load(self, keys: ReadKeys) -> ReadSet:
        """What a batch would read, with the nodes that its instances hold something on."""
        while True:
            try:
                return await StoreTransaction(self._connection, NodeCache()).load(keys)
            except LedgerConflict as further:
                keys.nodes |= further.nodes


@asynccontextmanager
async def snapshot(pool: asyncpg.Pool) -> AsyncIterator[Snapshot]:
    """Take a snapshot; it costs a connection, and is to be used without long pauses."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield Snapshot(connection)
