"""Giving dead letters up and taking that back, and saying why letters that were named are not met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.ledger import dead_letters

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from worker.ledger.dead_letters import LetterFilter, LetterState

_TOGETHER: Final = 1000
"""Letters marked in one transaction."""


async def discard(pool: asyncpg.Pool, which: LetterFilter, *, actor: str) -> tuple[int, int]:
    """Discard letters; how many were, and how many of those meant there are in any state of the filter."""
    return await _mark(pool, which, "discarded", "discarded", actor)


async def reopen(pool: asyncpg.Pool, which: LetterFilter, *, actor: str) -> tuple[int, int]:
    """Open letters again that were discarded; how many were, and how many of those meant there are."""
    return await _mark(pool, which, "open", "reopened", actor)


async def _mark(
    pool: asyncpg.Pool, which: LetterFilter, state: LetterState, action: str, actor: str
) -> tuple[int, int]:
    marked = 0
    letters = [letter.id async for letter in dead_letters.walk(pool, which)]
    for start in range(0, len(letters), _TOGETHER):
        async with pool.acquire() as connection:
            part = letters[start : start + _TOGETHER]
            marked += await dead_letters.mark(connection, part, state, actor=actor, action=action)
    return marked, len(letters)


async def states(pool: asyncpg.Pool, letters: Sequence[int]) -> dict[int, LetterState | None]:
    """The state of each of these letters; ``None`` of one that does not exist."""
    which = dead_letters.LetterFilter(ids=tuple(letters), states=None)
    async with pool.acquire() as connection:
        found = await dead_letters.select(connection, which, limit=len(letters))
    return dict.fromkeys(letters) | {letter.id: letter.state for letter in found}
