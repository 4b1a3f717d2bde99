"""The engine's ``Ledger`` port, on Postgres."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from worker.engine.ports import Lease, LedgerUnavailable, OutcomeRecord, Parked, Reply, Unpublished
from worker.ledger.errors import is_transient
from worker.ledger.nodes import NodeCache
from worker.ledger.statements import statement
from worker.ledger.store import StoreTransaction, transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    import asyncpg


class PostgresLedger:
    """See :class:`worker.engine.ports.Ledger`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._cache = NodeCache()

    def transaction(self, *, locking: bool = False) -> AbstractAsyncContextManager[StoreTransaction]:
        """A transaction of its own; the nodes it changed are remembered once it is committed."""
        return transaction(self._pool, self._cache, locking=locking)

    async def attempts(self, commands: Sequence[UUID]) -> dict[UUID, int]:
        """How often commands were begun and not finished."""
        return {row["command"]: row["attempts"] for row in await self._fetch("attempts", commands)}

    async def count_attempts(self, commands: Sequence[UUID]) -> None:
        """Note that commands are attempted once more."""
        await self._fetch("count_attempts", commands)

    async def due_probes(self, limit: int, *, least: float, most: float) -> list[str]:
        """Nodes with parked commands that are to be asked now."""
        return [row["node"] for row in await self._fetch("due_probes", limit, least, most)]

    async def probe_again(self, node: str, seconds: float) -> None:
        """Ask a node again soon: it answered."""
        await self._fetch("probe_again", node, seconds)

    async def parked(self, node: str, limit: int) -> list[Parked]:
        """The first parked commands of a node."""
        return [parked_of(row) for row in await self._fetch("parked", node, limit)]

    async def parked_in_all(self) -> tuple[int, int]:
        """How many commands are parked, and of how many nodes."""
        ((commands, nodes),) = await self._fetch("parked_in_all")
        return commands, nodes

    async def due_leases(self, limit: int) -> list[Lease]:
        """Leases that ran out."""
        return [Lease(**row) for row in await self._fetch("due_leases", limit)]

    async def unpublished(self, age: float, limit: int) -> list[Unpublished]:
        """Batches whose outcomes may not all be published."""
        rows = await self._fetch("unpublished", age, limit)
        return [
            Unpublished(outbox, [_answer(row) for row in batch if row["command"] is not None])
            for outbox, batch in groupby(rows, key=lambda row: row["outbox"])
        ]

    async def published(self, outboxes: Sequence[UUID]) -> None:
        """Note that these batches are published."""
        await self._fetch("published", outboxes)

    async def addresses(self, nodes: Sequence[str]) -> dict[str, str]:
        """The hypervisors of nodes."""
        return {row["node"]: row["hypervisor"] for row in await self._fetch("addresses", nodes)}

    async def _fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        async with available():
            rows: list[asyncpg.Record] = await self._pool.fetch(statement(name), *arguments)
            return rows


@asynccontextmanager
async def available() -> AsyncIterator[None]:
    """Tell the engine in its own terms that the database is away.

    Raises:
        LedgerUnavailable: it is.
    """
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise LedgerUnavailable(f"{type(error).__name__}: {error}") from error
        raise


def parked_of(row: asyncpg.Record) -> Parked:
    """A parked command from its row."""
    fields = dict(row)
    return Parked(reply=_taken_reply(fields), **fields)


def _answer(row: asyncpg.Record) -> OutcomeRecord:
    fields = dict(row)
    del fields["outbox"]
    return OutcomeRecord(codes=tuple(fields.pop("codes")), reply=_taken_reply(fields), **fields)


def _taken_reply(fields: dict[str, Any]) -> Reply:
    return Reply(fields.pop("reply_to"), fields.pop("correlation_id"), fields.pop("traceparent"))
