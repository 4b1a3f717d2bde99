"""The pool: every worker stands by on every shard, and hands over what it has too much of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from worker.engine.ports import LedgerUnavailable
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from uuid import UUID

    from worker.engine.ports import Broker

_log = get_logger(__name__)

_EVERY_SECONDS: Final = 1.0


class Pool(Protocol):
    """Who is alive, and who should serve which shard. May raise :class:`LedgerUnavailable`."""

    async def heartbeat(self) -> None:
        """Say that this worker is alive."""

    async def assign(self, shards: int) -> dict[int, UUID]:
        """Who should serve each shard now, shared evenly among those alive."""


async def keep_share(pool: Pool, broker: Broker, worker: UUID, shards: int) -> None:
    """Stay in the pool, and queue up behind the owner of each shard that is another's, for ever.

    The broker serves a shard's first consumer in line. When a shard gets another
    owner, everyone else steps behind it, which leaves it first.
    """
    owners: dict[int, UUID] = {}
    while True:
        try:
            await pool.heartbeat()
            now = await pool.assign(shards)
            behind = [shard for shard, owner in now.items() if owner != worker and owners.get(shard) != owner]
            if behind:
                await broker.yield_shards(behind)
            owners = now
        except LedgerUnavailable as trouble:
            _log.info("the pool waits for the database", error=str(trouble))
        await asyncio.sleep(_EVERY_SECONDS)
