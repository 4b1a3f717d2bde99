"""What a dead letter would do now, and sending it once more.

A letter is sent as it came, byte for byte, to the shard its node has today.
Its id makes a second replay, or one that was interrupted before it was
written down, harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from schemas import Command, MalformedCommandError, parse_command
from schemas.client import Message
from worker.engine.envelope import Envelope
from worker.engine.intake import fingerprint
from worker.ledger import dead_letters
from worker.ledger.dead_letters import Letter, LetterFilter
from worker.ledger.letters import is_cut
from worker.ledger.readers import statuses
from worker.operations.dry_run import NoPreview, Preview

if TYPE_CHECKING:
    import asyncpg

    from schemas.client import Client

Verdict = Literal["try", "duplicate", "unfit"]
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would become of a letter: ``command`` is there if it can be sent."""

    letter: Letter
    verdict: Verdict
    text: str
    command: Message | None


async def forecasts(
    pool: asyncpg.Pool, which: LetterFilter, *, again: bool = False, preview: Preview | None = None
) -> AsyncIterator[list[Forecast]]:
    """Every letter of a filter in the order they came, so in the order of each node, a page at a time.

    ``again`` takes letters too that were replayed before and are not resolved.
    Without ``preview``, what can be sent is not looked at any further.
    """
    preview = preview or NoPreview()
    states: tuple[dead_letters.LetterState, ...] = ("open", "replayed") if again else ("open",)
    meant = replace(which, states=states)
    after = 0
    while True:
        async with pool.acquire() as connection:
            page = await dead_letters.select(connection, meant, after=after, limit=_PAGE, bodies=True)
            read = [_read(letter) for letter in page]
            known = await statuses(connection, [command.id for command in read if not isinstance(command, str)])
        if page:
            await preview.read([command for command in read if not isinstance(command, str)])
            pairs = zip(page, read, strict=True)
            yield [_forecast(letter, command, known, preview) for letter, command in pairs]
            after = page[-1].id
        if len(page) < _PAGE:
            return


def _read(letter: Letter) -> Command | str:
    """The letter's command as it is understood today, or why it is none."""
    if is_cut(letter.headers):
        return "too_large: only the head of its body is kept"
    try:
        return parse_command(letter.body or b"")
    except MalformedCommandError as error:
        return f"{error.reason}: {error.detail}"


def _forecast(
    letter: Letter, command: Command | str, known: Mapping[UUID, tuple[UUID, str]], preview: Preview
) -> Forecast:
    if isinstance(command, str):
        return Forecast(letter, "unfit", f"would be dead-lettered again: {command}", None)
    envelope = Envelope.of_letter(letter.headers)
    message = Message(letter.body or b"", command.node, command.kind, command.id, **on_replay(envelope))
    own = fingerprint(command)
    content, status = known.get(command.id, (own, None))
    if content != own:
        return Forecast(letter, "unfit", "would be dead-lettered again: its id stands for another content", None)
    if status in {"applied", "rejected"}:
        return Forecast(letter, "duplicate", f"duplicate: it is {status} already, its outcome is sent again", message)
    return Forecast(letter, "try", preview.tell(command, letter), message)


def on_replay(envelope: Envelope) -> dict[str, Any]:
    """How a message is sent for those whose it was: their names go with it, and the answer goes to them."""
    reply = envelope.reply
    return {"headers": envelope.on_replay(), "reply_to": reply.to, "correlation_id": reply.correlation_id}


class Replay:
    """Sends letters again, at most ``rate`` a second, and writes down who did it."""

    def __init__(self, pool: asyncpg.Pool, client: Client, actor: str, rate: float | None) -> None:
        self._pool = pool
        self._client = client
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
            await self._client.publish([forecast.command for forecast in part if forecast.command])
            await dead_letters.replayed(self._pool, [forecast.letter for forecast in part], actor=self._actor)
        return len(fit)

    async def _keep_pace(self, count: int) -> None:
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self._due - now))
        self._due = max(now, self._due) + count / self._rate
