"""What a dead letter would do now, and sending it once more.

A letter is sent as it came, byte for byte, to the shard its node has today.
Its id makes a second replay, or one that was interrupted before it was
written down, harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from schemas import Command, MalformedCommandError, parse_command
from worker.cli.producing import Sendable
from worker.ledger import dead_letters
from worker.ledger.dead_letters import Letter, LetterFilter
from worker.ledger.statements import statement

if TYPE_CHECKING:
    import asyncpg

    from worker.cli.sending import Sender

Verdict = Literal["try", "duplicate", "unfit"]
Predict = Callable[[Command], Awaitable[str]]
_PAGE: Final = 250


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would become of a letter: ``command`` is there if it can be sent."""

    letter: Letter
    verdict: Verdict
    text: str
    command: Sendable | None


async def predict(command: Command) -> str:
    """What would become of a command that is not applied yet, as far as it can be told without its node's state."""
    if command.expires_at is not None and command.expires_at <= datetime.now(UTC):
        return f"would be rejected: it expired at {command.expires_at.isoformat()}"
    return "would be tried again"


async def forecasts(
    pool: asyncpg.Pool, which: LetterFilter, *, again: bool = False, asking: Predict = predict
) -> AsyncIterator[list[Forecast]]:
    """Every letter of a filter in the order they came, so in the order of each node, a page at a time.

    ``again`` takes letters too that were replayed before and are not resolved.
    """
    states: tuple[dead_letters.LetterState, ...] = ("open", "replayed") if again else ("open",)
    meant = LetterFilter(which.ids, states, which.reason, which.node, which.kind, which.group)
    after = 0
    while True:
        async with pool.acquire() as connection:
            page = await dead_letters.select(connection, meant, after=after, limit=_PAGE, bodies=True)
            ids = [letter.command for letter in page if letter.command]
            rows = await connection.fetch(statement("show_statuses"), ids)
        known = {row["id"]: row["status"] for row in rows}
        if page:
            yield [await _forecast(letter, known, asking) for letter in page]
            after = page[-1].id
        if len(page) < _PAGE:
            return


async def _forecast(letter: Letter, known: Mapping[UUID, str], asking: Predict) -> Forecast:
    body = letter.body or b""
    try:
        command = parse_command(body)
    except MalformedCommandError as error:
        return Forecast(letter, "unfit", f"would be dead-lettered again: {error.reason}: {error.detail}", None)
    if letter.reason == "id_reuse":
        return Forecast(letter, "unfit", "would be dead-lettered again: its id stands for another content", None)
    sendable = Sendable(body, command.node, command.kind, command.id)
    status = known.get(command.id)
    if status in {"applied", "rejected"}:
        return Forecast(letter, "duplicate", f"duplicate: it is {status} already, its outcome is sent again", sendable)
    return Forecast(letter, "try", await asking(command), sendable)


class Replay:
    """Sends letters again, at most ``rate`` a second, and writes down who did it."""

    def __init__(self, pool: asyncpg.Pool, sender: Sender, actor: str, rate: float | None) -> None:
        self._pool = pool
        self._sender = sender
        self._actor = actor
        self._rate = rate
        self._due = asyncio.get_running_loop().time()

    async def send(self, page: Sequence[Forecast]) -> int:
        """Send what can be sent of a page, in order; returns how many."""
        fit = [forecast for forecast in page if forecast.command is not None]
        step = len(fit) if self._rate is None else max(1, int(self._rate / 4))
        for start in range(0, len(fit), step or 1):
            part = fit[start : start + step]
            await self._keep_pace(len(part))
            await self._sender.send([forecast.command for forecast in part if forecast.command])
            letters = [forecast.letter for forecast in part]
            await self._pool.execute(
                statement("dead_letter_replayed"),
                [letter.id for letter in letters],
                [letter.attempts for letter in letters],
                self._actor,
            )
        return len(fit)

    async def _keep_pace(self, count: int) -> None:
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self._due - now))
        self._due = max(now, self._due) + count / self._rate
