"""Another number of shards, with nothing lost and each node's order kept.

While it runs, the command exchange leads to a queue of its own, so that
publishers need not stop. What the old queues hold is gathered in one queue,
then shared out over the new ones, then what arrived meanwhile is. How far it
came is kept in the database, and workers do not start before it is done: one
that was interrupted is finished by running it again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiormq.exceptions import ChannelLockedResource
from pydantic_core import from_json

from schemas import shard_of
from schemas.routing import COMMAND_EXCHANGE, command_key, command_queue
from worker.broker import topology
from worker.errors import OperationError
from worker.ledger.installation import (
    abandon_resharding,
    begin_resharding,
    end_resharding,
    installation,
    old_queues_gathered,
)
from worker.ledger.members import members_alive
from worker.operations.moving import depth, move_all
from worker.servers import broker, writing

if TYPE_CHECKING:
    import asyncpg

    from worker.broker.link import Link
    from worker.ledger.installation import Installation
    from worker.operations.reporting import Note, Progress

BACKLOG: Final = "nodeledger.reshard.backlog"
ARRIVALS: Final = "nodeledger.reshard.arrivals"
_LOCK: Final = "nodeledger.reshard.lock"
_ALIVE_SECONDS: Final = 10.0
"""Twice what a worker counts as alive among its peers: one that was paused for a moment may still come back."""


async def reshard(shards: int, *, progress: Progress, note: Note) -> Resharding:
    """Change the number of shards, while no worker runs, or finish a change that was interrupted.

    Raises:
        OperationError: a worker is there, another run is, or a change to
            another number is half done; nothing was changed.
        UnreachableError: a server cannot be reached.
    """
    async with writing() as pool, broker() as link, _alone(link):
        await _refuse_while_served(pool, link)
        started = await _begin(pool, shards)
        try:
            await _refuse_while_served(pool, link)
        except OperationError:
            await abandon_resharding(pool)
            raise
        work = Resharding(pool=pool, link=link, before=started.shards, shards=shards, progress=progress, note=note)
        if not started.gathered:
            await work.gather()
        await work.share_out()
        return work


@dataclass(slots=True)
class Resharding:
    """One run; ``closed_seconds`` is how long the exchange led nowhere."""

    pool: asyncpg.Pool
    link: Link
    before: int
    shards: int
    progress: Progress
    note: Note
    gathered: int = 0
    shared_out: int = 0
    closed_seconds: float = field(default=0.0)

    async def gather(self) -> None:
        """Lead what is published aside, and gather what the old queues hold."""
        await self._bind(aside=True)
        with self.progress("gathering") as advance:
            for shard in range(self.before):
                await self._move(command_queue(shard), lambda _body: BACKLOG, advance, "gathered")
        await old_queues_gathered(self.pool)

    async def share_out(self) -> None:
        """Fill the new queues with what was gathered and what arrived since, and let the exchange lead to them."""
        await topology.ensure(self.link, self.shards, declare=True, bind=False)
        with self.progress("sharing out") as advance:
            for source in (BACKLOG, ARRIVALS):
                await self._move(source, self._queue_of, advance, "shared_out")
            closed = time.monotonic()
            await self._bind(aside=False)
            await self._move(ARRIVALS, self._queue_of, advance, "shared_out")
        await topology.ensure(self.link, self.shards, declare=True)
        self.closed_seconds = time.monotonic() - closed
        await end_resharding(self.pool, self.shards)
        for queue in (BACKLOG, ARRIVALS, *map(command_queue, range(self.shards, self.before))):
            await self._delete(queue)

    def _queue_of(self, body: bytes) -> str:
        """The queue of a command's node; what names none goes to the first, where a worker puts it away."""
        try:
            node = from_json(body).get("node")
            return command_queue(shard_of(node, self.shards))
        except (ValueError, AttributeError):
            return command_queue(0)

    async def _move(self, source: str, route: Callable[[bytes], str], advance: Callable[[int], None], to: str) -> None:
        def count(moved: int) -> None:
            advance(moved)
            setattr(self, to, getattr(self, to) + moved)

        await move_all(self.link, source, route, count)

    async def _bind(self, *, aside: bool) -> None:
        """Lead the exchange to the queue of arrivals instead of the old ones; or, at the end, nowhere."""
        channel = await self.link.scratch_channel()
        for name in (BACKLOG, ARRIVALS):
            await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        arrivals = await channel.get_queue(ARRIVALS, ensure=False)
        for shard in range(max(self.before, self.shards)):
            key = command_key(shard)
            if not aside:
                await arrivals.unbind(COMMAND_EXCHANGE, key)
                continue
            await arrivals.bind(COMMAND_EXCHANGE, key)
            if shard < self.before:
                await (await channel.get_queue(command_queue(shard), ensure=False)).unbind(COMMAND_EXCHANGE, key)
        await channel.close()

    async def _delete(self, queue: str) -> None:
        """Delete a queue that is of no use any more, unless somebody uses it all the same."""
        if await depth(self.link, queue) == (0, 0):
            channel = await self.link.scratch_channel()
            await channel.queue_delete(queue)
            await channel.close()
        else:
            self.note(f"{queue} is in use and was left as it is")


@asynccontextmanager
async def _alone(link: Link) -> AsyncIterator[None]:
    """One run at a time: an exclusive queue is gone with its connection."""
    channel = await link.scratch_channel()
    try:
        await channel.declare_queue(_LOCK, exclusive=True)
    except ChannelLockedResource:
        raise OperationError("the shards are being changed by another run of this command") from None
    yield
    await channel.queue_delete(_LOCK)


async def _refuse_while_served(pool: asyncpg.Pool, link: Link) -> None:
    """Say that workers must be stopped first."""
    alive = [member.name for member in await members_alive(pool, _ALIVE_SECONDS)]
    if alive:
        text = f"stop the workers first ({_some(alive)}), wait {_ALIVE_SECONDS:.0f} s, and run this again"
        raise OperationError(text)
    found = await installation(pool)
    queues = [command_queue(shard) for shard in range(0 if found is None else found.shards)]
    served = [queue for queue in queues if (await depth(link, queue))[1]]
    if served:
        text = f"somebody consumes from {_some(served)}: a worker that hangs, or was paused"
        raise OperationError(f"{text}. End it, or its connection at the broker, and run this again")


async def _begin(pool: asyncpg.Pool, shards: int) -> Installation:
    started = await begin_resharding(pool, shards)
    if started is not None:
        return started
    found = await installation(pool)
    if found is None:
        raise OperationError(f"no worker was ever started here: just start them with NODELEDGER_SHARDS={shards}")
    raise OperationError(f"a change to {found.resharding_to} shards is half done: finish that first")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004 - enough to begin with
