"""A worker's place in the pool as the engine wants it: a database that is away is told in the engine's terms."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.engine.ports import LedgerUnavailable
from worker.ledger.errors import repeated
from worker.ledger.postgres import available

if TYPE_CHECKING:
    from uuid import UUID

    from worker.ledger.members import Members

_LEAVE_SECONDS: Final = 1.0
"""Leaving only spares the others the time until they miss this worker: not worth a longer wait."""


@dataclass(frozen=True, slots=True)
class LedgerMembership:
    """See :class:`worker.engine.shards.Membership`."""

    members: Members

    async def heartbeat(self) -> None:
        """Say that this worker is alive."""
        async with available():
            await repeated(self.members.heartbeat)

    async def assign(self, shards: int) -> dict[int, UUID]:
        """Who should serve each shard now."""
        async with available():
            return await repeated(lambda: self.members.assign(shards))

    async def leave(self) -> None:
        """Leave the pool; a database that is away will miss this worker soon enough."""
        with contextlib.suppress(LedgerUnavailable, TimeoutError):
            async with available(), asyncio.timeout(_LEAVE_SECONDS):
                await self.members.leave()
