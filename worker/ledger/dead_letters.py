"""The archive of dead letters: kept once each, grouped, replayed, and every action on them recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from pydantic_core import from_json

from worker.ledger.letters import letter_columns
from worker.ledger.statements import Connection, bound, statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import asyncpg

    from worker.engine.ports import DeadLetter

LetterState = Literal["open", "replayed", "resolved", "discarded"]
UNSETTLED: Final[tuple[LetterState, ...]] = ("open", "replayed")
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant; what is ``None`` does not matter. ``group`` is a fingerprint."""

    ids: tuple[int, ...] | None = None
    states: tuple[LetterState, ...] | None = UNSETTLED
    reason: str | None = None
    node: str | None = None
    kind: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """An archived dead letter. ``body`` and ``headers`` are there only where they were asked for."""

    id: int
    reason: str
    detail: str
    fingerprint: str
    node: str | None
    kind: str | None
    command: UUID | None
    first_seen: datetime
    last_seen: datetime
    attempts: int
    state: LetterState
    size_bytes: int
    body: bytes | None
    headers: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Letters with one cause; ``example`` is the id of the oldest."""

    reason: str
    fingerprint: str
    letters: int
    nodes: int
    first_seen: datetime
    last_seen: datetime
    example: int


@dataclass(frozen=True, slots=True)
class CommandLetter:
    """A command that is in the dead letters, by which letter and why."""

    command: UUID
    letter: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class LetterAction:
    """What somebody did to a letter."""

    at: datetime
    actor: str
    action: str
    detail: str | None


async def store(connection: Connection | asyncpg.Pool, letters: Sequence[DeadLetter]) -> None:
    """Archive letters, each once: one that is there already is counted again, and open again.

    A letter is known by its whole body's digest and its reason, so that storing the
    same delivery twice loses nothing and adds no row.
    """
    if letters:
        await connection.execute(*bound("dead_letter_store", letters=letter_columns(letters)))


async def select(
    connection: Connection, which: LetterFilter, *, after: int = 0, limit: int = _PAGE, bodies: bool = False
) -> list[Letter]:
    """At most ``limit`` letters with an id above ``after``, in the order in which they came."""
    page = bound(
        "dead_letter_select",
        after=after,
        ids=which.ids,
        states=which.states,
        reason=which.reason,
        node=which.node,
        kind=which.kind,
        group=which.group,
        limit=limit,
        bodies=bodies,
    )
    return [_letter(row) for row in await connection.fetch(*page)]


async def walk(pool: asyncpg.Pool, which: LetterFilter, *, bodies: bool = False) -> AsyncIterator[Letter]:
    """All letters of a filter in order, a page at a time: no transaction stays open between them."""
    after = 0
    while True:
        async with pool.acquire() as connection:
            page = await select(connection, which, after=after, bodies=bodies)
        for letter in page:
            yield letter
        if len(page) < _PAGE:
            return
        after = page[-1].id


async def find(connection: Connection, letter: int) -> Letter | None:
    """One letter with its body and headers."""
    found = await select(connection, LetterFilter(ids=(letter,), states=None), limit=1, bodies=True)
    return found[0] if found else None


async def actions(connection: Connection, letter: int) -> list[LetterAction]:
    """What was done to a letter, the oldest first."""
    return [LetterAction(**row) for row in await connection.fetch(statement("dead_letter_actions"), letter)]


async def groups(connection: Connection, which: LetterFilter) -> list[LetterGroup]:
    """Letters of a filter (its ``ids`` left aside) by cause, the most frequent first."""
    grouped = bound(
        "dead_letter_groups",
        states=which.states,
        reason=which.reason,
        node=which.node,
        kind=which.kind,
        group=which.group,
    )
    return [LetterGroup(**row) for row in await connection.fetch(*grouped)]


async def mark(
    connection: Connection,
    letters: Sequence[int],
    state: LetterState,
    *,
    actor: str,
    action: str | None = None,
    detail: str | None = None,
) -> int:
    """Set the state of letters and record who did it; returns how many changed.

    ``action`` is the state's name unless said otherwise (``edited``, with the
    new command's id as its detail).
    """
    marked = bound(
        "dead_letter_mark", letters=list(letters), state=state, actor=actor, action=action or state, detail=detail
    )
    changed: int = await connection.fetchval(*marked)
    return changed


async def replayed(connection: Connection | asyncpg.Pool, letters: Sequence[Letter], *, actor: str) -> None:
    """Record that letters were sent again; one that came back meanwhile stays open."""
    await connection.execute(
        statement("dead_letter_replayed"),
        [letter.id for letter in letters],
        [letter.attempts for letter in letters],
        actor,
    )


async def note(
    connection: Connection, commands: Sequence[UUID], reason: str, *, actor: str, action: str, detail: str
) -> None:
    """Record what was done with the letters that commands have for a reason."""
    noted = bound("dead_letter_note", commands=list(commands), reason=reason, actor=actor, action=action, detail=detail)
    await connection.execute(*noted)


async def of_commands(connection: Connection | asyncpg.Pool, commands: Sequence[UUID]) -> list[CommandLetter]:
    """The latest unsettled letter of each of these commands that has one."""
    return [CommandLetter(*row.values()) for row in await connection.fetch(statement("show_dead_commands"), commands)]


async def resolve(connection: Connection, limit: int = 1000) -> int:
    """Resolve letters whose command has its final outcome by now; returns how many, at most ``limit``."""
    resolved: int = await connection.fetchval(statement("dead_letter_resolve"), limit)
    return resolved


def _letter(row: asyncpg.Record) -> Letter:
    values = dict(row)
    headers = values.pop("headers")
    return Letter(**values, headers=None if headers is None else from_json(headers))
