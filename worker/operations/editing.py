"""Putting a dead letter right: an edited copy of it as a new command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from pydantic_core import from_json, to_json

from schemas import parse_command
from schemas.client import Message
from worker.engine.envelope import Envelope
from worker.errors import OperationError, UsageError
from worker.ledger import dead_letters
from worker.operations.dry_run import previewing
from worker.operations.producing import RefusedLineError, complete
from worker.operations.replay import on_replay
from worker.operations.shards import stored_shards
from worker.servers import client, writing

if TYPE_CHECKING:
    import asyncpg

    from worker.ledger.dead_letters import Letter

_EDITS: Final = UUID("6f1b3f0e-2c2f-5c1e-9d7b-0c5f5f1f6d10")
"""The name space of edited letters: the same edit of the same letter has the same id, however often it is made."""
_OWN: Final = ("id", "version")


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change in a letter's command: ``PATH=VALUE`` and ``PATH`` texts, or the ``whole`` command instead of it.

    The new command has an id of its own, which follows from the letter and the
    edit: making the same edit again is a duplicate, not a second command.
    """

    letter: int
    settings: Sequence[str] = ()
    unset: Sequence[str] = ()
    whole: bytes | None = None

    async def tell(self) -> tuple[Message, str]:
        """The new command, and what would become of it.

        Raises:
            OperationError: there is no such letter, it is settled, or the edit makes no valid command of it.
            UsageError: the edit names what is not there.
        """
        async with writing() as pool:
            letter = await self._find(pool)
            new = self.applied(letter)
            command = parse_command(new.body)
            async with previewing(pool) as preview:
                await preview.read([command])
                return new, preview.tell(command, _unpoisoned(letter))

    async def send(self, actor: str) -> Message:
        """Send it, and then write it down: an edit that was interrupted between the two can be made again.

        Raises:
            OperationError, UsageError: as :meth:`tell`; no queue takes the command.
            UnreachableError: a server is away.
        """
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(writing())
            letter = await self._find(pool)
            new = self.applied(letter)
            sender = await stack.enter_async_context(client(await stored_shards(pool)))
            await sender.publish([new])
            async with pool.acquire() as connection:
                done = f"sent as {new.id}"
                await dead_letters.mark(connection, [letter.id], "resolved", actor=actor, action="edited", detail=done)
        return new

    async def _find(self, pool: asyncpg.Pool) -> Letter:
        async with pool.acquire() as connection:
            letter = await dead_letters.find(connection, self.letter)
        if letter is None:
            raise OperationError(f"there is no dead letter {self.letter}")
        if letter.state not in dead_letters.UNSETTLED:
            text = f"letter {self.letter} is {letter.state} already: `dead show {self.letter}` tells why"
            raise OperationError(text)
        return letter

    def applied(self, letter: Letter) -> Message:
        """The new command."""
        document = self._document(letter)
        content = {name: value for name, value in document.items() if name != "issued_at"}
        origin = f"{letter.id} {letter.first_seen} {letter.attempts}\n".encode()
        digest = blake2b(origin + json.dumps(content, sort_keys=True).encode()).hexdigest()
        try:
            made = complete(to_json({**document, "id": str(uuid5(_EDITS, digest))}))
        except RefusedLineError as error:
            raise OperationError(f"the edited command is not valid: {error}") from None
        return replace(made, **on_replay(Envelope.of_letter(letter.headers)))

    def _document(self, letter: Letter) -> dict[str, Any]:
        """The new command's fields, without those that are its own."""
        document = _object(letter.body or b"" if self.whole is None else self.whole)
        for name in _OWN:
            document.pop(name, None)
        for path in self.unset:
            _at(document, path, remove=True)
        for setting in self.settings:
            path, equals, text = setting.partition("=")
            if not equals or path in _OWN:
                raise UsageError(f"--set {setting}: expected PATH=VALUE, of a field other than id and version")
            _at(document, path, _value(text))
        return document


def _unpoisoned(letter: Letter) -> Letter:
    """The letter as a preview may decide it: an edited command is not the one that ended its workers."""
    return replace(letter, reason="edited")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise OperationError(f"not JSON: {error}; give the whole command with --file") from None
    if not isinstance(found, dict):
        raise OperationError("not a JSON object; give the whole command with --file")
    return found


def _at(document: dict[str, Any], path: str, value: object = None, *, remove: bool = False) -> None:
    """Set or remove what is at a path of keys and list positions; objects that are missing are made on the way."""
    *way, last = path.split(".")
    if path in document or not way:
        way, last = [], path
    place: Any = document
    try:
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        key: Any = int(last) if isinstance(place, list) else last
        if remove:
            del place[key]
        elif isinstance(place, list) and key == len(place):
            place.append(value)
        else:
            place[key] = value
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise UsageError(f"the command has no place {path!r}") from None


def _value(text: str) -> object:
    try:
        found: object = from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
    return found
