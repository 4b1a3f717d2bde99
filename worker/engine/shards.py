"""The pool: every worker stands by on every shard, and hands over what it has too much of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from worker.engine.ports import BrokerUnavailable, LedgerUnavailable
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from worker.engine.ports import Broker

_log = get_logger(__name__)

_EVERY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 3.0


class Membership(Protocol):
    """Who is alive, and who should serve which shard. May raise :class:`LedgerUnavailable`."""

    async def heartbeat(self) -> None:
        """Say that this worker is alive."""

    async def assign(self, shards: int) -> dict[int, UUID]:
        """Who should serve each shard now, shared evenly among those alive."""


async def keep_share(
    pool: Membership,
    broker: Broker,
    worker: UUID,
    shards: int,
    tell: Callable[[str | None], None],
    own: Callable[[frozenset[int]], None],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Stay in the pool, and queue up behind the owner of each shard that is another's, forever.

    The broker serves a shard's first consumer in line. When a shard gets another
    owner, everyone else steps behind it, which leaves it first. A worker joins
    only once it stands in line itself; one that is served a shard of another's
    all the same, since the broker came back in between, steps behind again.
    ``tell`` hears each time whether the database answers, also of an idle worker,
    and ``own`` which shards are this worker's.
    """
    loop = asyncio.get_running_loop()
    owners: dict[int, UUID] = {}
    stepped: dict[int, float] = {}
    while True:
        try:
            await broker.in_line()
            await pool.heartbeat()
            now = await pool.assign(shards)
            tell(None)
            served = {shard for shard in broker.served() if stepped.get(shard, 0.0) < loop.time() - _PATIENCE_SECONDS}
            others = {shard for shard, owner in now.items() if owner != worker}
            own(frozenset(now.keys() - others))
            behind = {shard for shard in others if owners.get(shard) != now[shard]} | (others & served)
            owners = now
            if behind:
                _log.info("stepping behind the owners of shards", shards=sorted(behind))
                await broker.yield_shards(behind)
                stepped.update(dict.fromkeys(behind, loop.time()))
        except BrokerUnavailable as trouble:
            _log.info("the pool waits for the broker", error=str(trouble))
        except LedgerUnavailable as trouble:
            _log.info("the pool waits for the database", error=str(trouble))
            tell(str(trouble))
        await pause(_EVERY_SECONDS)
