"""The engine's ``Ledger`` port, on Postgres."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from worker.engine.ports import (
    Hypervisor,
    Lease,
    LedgerUnavailable,
    OutcomeRecord,
    Parked,
    Reply,
    Standing,
    Unpublished,
)
from worker.ledger.errors import is_transient, repeated
from worker.ledger.nodes import NodeCache
from worker.ledger.statements import bound, statement
from worker.ledger.store import StoreTransaction, transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    import asyncpg

_BEFORE_ALL: Final = Lease("", UUID(int=0), datetime.min.replace(tzinfo=UTC))


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

    async def uncount_attempts(self, commands: Sequence[UUID]) -> None:
        """Note that commands wait before they are attempted."""
        await self._fetch("uncount_attempts", commands)

    async def due_probes(self, limit: int, *, least: float, most: float) -> list[str]:
        """Nodes with parked commands that are to be asked now."""
        return [row["node"] for row in await self._fetch("due_probes", limit, least, most)]

    async def forget_probes(self) -> None:
        """Ask nodes no more for which nothing is parked.

        In two statements, so that the second sees what was parked until the
        first had its locks; who parks something afterwards waits for them.
        """
        async with available():
            await repeated(self._forget_probes)

    async def _forget_probes(self) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(statement("idle_probes"))
            if rows:
                await connection.execute(statement("forget_probes"), [row["node"] for row in rows])

    async def probe_again(self, node: str, seconds: float) -> None:
        """Ask a node again soon: it answered."""
        await self._fetch("probe_again", node, seconds)

    async def parked(self, node: str, limit: int) -> list[Parked]:
        """The first parked commands of a node."""
        return [_parked(row) for row in await self._fetch("parked", node, limit)]

    async def parked_commands(self, commands: Sequence[UUID]) -> list[Parked]:
        """Those of these commands that are parked, in their order."""
        return [_parked(row) for row in await self._fetch("parked_commands", commands)]

    async def parked_in_all(self) -> tuple[int, int]:
        """How many commands are parked, and of how many nodes."""
        ((commands, nodes),) = await self._fetch("parked_in_all")
        return commands, nodes

    async def wake_probes(self, nodes: Sequence[str]) -> None:
        """Ask these nodes at once, if commands are parked for them."""
        await self._fetch("wake_probes", nodes)

    async def hypervisors(self) -> list[Hypervisor]:
        """Every node that has a hypervisor."""
        return [Hypervisor(**row) for row in await self._fetch("hypervisors")]

    async def standings(self, nodes: Sequence[str]) -> dict[str, Standing]:
        """How nodes stand now."""
        return {row["node"]: Standing(*list(row.values())[1:]) for row in await self._fetch("standings", nodes)}

    async def drift_in_all(self) -> dict[str, int]:
        """How much differs now, by kind."""
        return {row["kind"]: row["amount"] for row in await self._fetch("drift_in_all")}

    async def load_in_all(self) -> dict[str, Sequence[int]]:
        """How busy the hosts are, in percent."""
        return {row["what"]: row["amounts"] for row in await self._fetch("load_in_all")}

    async def due_leases(self, limit: int, after: Lease | None = None) -> list[Lease]:
        """Leases that ran out, in their order, after one of them."""
        last = after or _BEFORE_ALL
        page = bound("due_leases", limit=limit, expired_at=last.expired_at, instance=last.instance, node=last.node)
        async with available():
            rows = await self._pool.fetch(*page)
        return [Lease(**row) for row in rows]

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

    async def narrow_unpublished(self, missing: Mapping[UUID, Sequence[UUID]], seconds: float) -> None:
        """Note what of these batches is not published yet, and leave it to the caller for a while."""
        pairs = [(outbox, command) for outbox, commands in missing.items() for command in commands]
        await self._fetch("unpublished_narrow", [outbox for outbox, _ in pairs], [one for _, one in pairs], seconds)

    async def addresses(self, nodes: Sequence[str]) -> dict[str, str]:
        """The hypervisors of nodes."""
        return {row["node"]: row["hypervisor"] for row in await self._fetch("addresses", nodes)}

    async def _fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        async with available():
            rows: list[asyncpg.Record] = await repeated(lambda: self._pool.fetch(statement(name), *arguments))
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


def _parked(row: asyncpg.Record) -> Parked:
    """A parked command from its row."""
    fields = dict(row)
    return Parked(reply=_taken_reply(fields), **fields)


def _answer(row: asyncpg.Record) -> OutcomeRecord:
    fields = dict(row)
    del fields["outbox"]
    return OutcomeRecord(codes=tuple(fields.pop("codes")), reply=_taken_reply(fields), **fields)


def _taken_reply(fields: dict[str, Any]) -> Reply:
    return Reply(fields.pop("reply_to"), fields.pop("correlation_id"), fields.pop("traceparent"))
