"""The installation as a whole: its number of shards and the change of it, its server, and what waits in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from worker.ledger.statements import statement

if TYPE_CHECKING:
    import asyncpg

    from worker.ledger.statements import Connection


@dataclass(frozen=True, slots=True)
class Installation:
    """How many shards there are; while that is being changed, to how many, and whether the old queues are empty."""

    shards: int
    resharding_to: int | None
    gathered: bool


@dataclass(frozen=True, slots=True)
class Server:
    """The database's server, as far as it matters for keeping what was committed; ``clock`` is its time."""

    version: str
    clock: datetime
    read_only: bool
    fsync: str
    synchronous_commit: str
    full_page_writes: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much waits for somebody: open dead letters, parked commands, batches that may be unpublished."""

    dead_letters: int
    parked: int
    unpublished: int


async def installation(connection: Connection | asyncpg.Pool) -> Installation | None:
    """What there is; ``None`` before the first worker has started."""
    row = await connection.fetchrow(statement("show_installation"))
    return None if row is None else Installation(*row.values())


async def server(connection: Connection | asyncpg.Pool) -> Server:
    """The server that answers."""
    (row,) = await connection.fetch(statement("show_server"))
    return Server(*row.values())


async def waiting(connection: Connection | asyncpg.Pool) -> Waiting:
    """What waits for somebody."""
    (row,) = await connection.fetch(statement("show_waiting"))
    return Waiting(*row.values())


async def begin_resharding(connection: Connection | asyncpg.Pool, shards: int) -> Installation | None:
    """Begin to change the number of shards, or go on with it; ``None`` if another change is half done."""
    row = await connection.fetchrow(statement("reshard_begin"), shards)
    return None if row is None else Installation(row["shards"], shards, row["gathered"])


async def abandon_resharding(connection: Connection | asyncpg.Pool) -> None:
    """Take a change back that has moved nothing."""
    await connection.execute(statement("reshard_abandon"))


async def old_queues_gathered(connection: Connection | asyncpg.Pool) -> None:
    """Note that no message is left in the old queues."""
    await connection.execute(statement("reshard_gathered"))


async def end_resharding(connection: Connection | asyncpg.Pool, shards: int) -> None:
    """Let the new number hold."""
    await connection.execute(statement("reshard_end"), shards)
