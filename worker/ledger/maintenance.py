"""Keeping house: old rows leave in small portions, and the ledger's next months are made ready."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from worker.ledger.dead_letters import resolve
from worker.ledger.parked import repair
from worker.ledger.statements import statement

if TYPE_CHECKING:
    import asyncpg

_MONTHS_AHEAD: Final = 2
_NODES_AT_ONCE: Final = 5
_CARRY_SECONDS: Final = 660.0
_ATTEMPTS_KEPT: Final = timedelta(days=7)
"""Attempts are counted while a command's message comes back to the queue, which takes minutes; a week is plenty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long rows are kept, at least a day; ``None``: forever.

    ``commands`` is how long an id is recognised, ``tombstones`` how long a
    deleted instance is, and what is known of one whose claim was aborted or
    expired; longer where a parked command or a dead letter that is not dealt
    with could still claim it. Dead letters go only once they are resolved or
    discarded. Entries go by whole months and are carried forward into one line
    for each instance that holds something. Drift is counted from when it was over.
    """

    commands: timedelta | None
    tombstones: timedelta | None
    dead_letters: timedelta | None
    entries: timedelta | None
    drift: timedelta | None


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows left, of each kind, and what was done beside it.

    ``repaired`` counts nodes and commands that contradicted what is parked, as an
    earlier version could leave them.
    """

    commands: int
    tombstones: int
    idle_instances: int
    dead_letters: int
    drift: int
    resolved: int
    repaired: int
    portions_carried: int
    months_made: int
    months_dropped: int


async def keep_house(pool: asyncpg.Pool, retention: Retention, *, portion: int = 1000) -> Swept:
    """Let everything go that is past its retention.

    Each portion is a transaction of its own, so that it may stop, be stopped or
    run beside another at any point.

    Raises:
        asyncpg.PostgresError, OSError: as :mod:`worker.ledger.errors` tells apart.
    """
    made = await pool.fetchval(statement("prepare_entry_months"), _MONTHS_AHEAD)
    await pool.execute(statement("purge_attempts"), _ATTEMPTS_KEPT)
    carried, dropped = await _let_entries_go(pool, retention.entries)
    return Swept(
        commands=await _purge(pool, "purge_commands", retention.commands, portion),
        tombstones=await _purge(pool, "purge_tombstones", retention.tombstones, portion),
        idle_instances=await _purge(pool, "purge_idle_instances", retention.tombstones, portion),
        dead_letters=await _purge(pool, "purge_dead_letters", retention.dead_letters, portion),
        drift=await _purge(pool, "purge_drift", retention.drift, portion),
        resolved=await _resolve_all(pool, portion),
        repaired=await repair(pool),
        portions_carried=carried,
        months_made=made,
        months_dropped=dropped,
    )


async def _purge(pool: asyncpg.Pool, name: str, age: timedelta | None, portion: int) -> int:
    total = 0
    if age is None:
        return total
    while gone := await pool.fetchval(statement(name), age, portion):
        total += gone
    return total


async def _resolve_all(pool: asyncpg.Pool, portion: int) -> int:
    total = 0
    async with pool.acquire() as connection:
        while resolved := await resolve(connection, portion):
            total += resolved
    return total


async def _let_entries_go(pool: asyncpg.Pool, age: timedelta | None) -> tuple[int, int]:
    if age is None:
        return 0, 0
    portions, after = 0, await _carry(pool, age, "")
    while after is not None:
        portions, after = portions + 1, await _carry(pool, age, after)
    return portions, await pool.fetchval(statement("drop_entry_months"), age)


async def _carry(pool: asyncpg.Pool, age: timedelta, after: str) -> str | None:
    """Carry the next few nodes' entries forward; returns the last of them, ``None`` if there was none."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(statement("carry_begin"))
        last: str | None = await connection.fetchval(
            statement("carry_entries"), age, after, _NODES_AT_ONCE, timeout=_CARRY_SECONDS
        )
        return last
