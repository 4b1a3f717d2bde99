"""``nodeledger dead edit``: put a dead letter right, and send it as a new command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID, uuid5

import typer
from pydantic_core import from_json, to_json

from worker.cli.common import console
from worker.cli.common.actor import Actor, whoami
from worker.cli.common.errors import OK
from worker.cli.common.running import run
from worker.errors import OperationError, UsageError
from worker.servers import broker, writing

if TYPE_CHECKING:
    import asyncpg

    from worker.ledger.dead_letters import Letter
    from worker.operations.producing import Sendable

Id = Annotated[int, typer.Argument(metavar="ID", help="The letter's number.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a field, such as resources.vcpus=4 or node=cn-2."),
]
Unset = Annotated[list[str] | None, typer.Option("--unset", metavar="PATH", help="Leave a field out.")]
FileOption = Annotated[str | None, typer.Option("--file", help="The whole command, instead of the letter's; - too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the new command and what it would do.")]

_EDITS: Final = UUID("6f1b3f0e-2c2f-5c1e-9d7b-0c5f5f1f6d10")
"""The name space of edited letters: the same edit of the same letter has the same id, however often it is made."""
_OWN: Final = ("id", "version")


def edit(
    id: Id,
    settings: Set = None,
    unset: Unset = None,
    file: FileOption = None,
    dry_run: DryRun = False,
    actor: Actor = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Send an edited copy of a letter as a new command, and settle the letter.

    The new command has an id of its own, which follows from the letter and the
    edit: making the same edit again is a duplicate, not a second command. A
    value is JSON where it can be read as such, and text otherwise. What was
    done, by whom, and the new id are written down with the letter.
    """
    if not (settings or unset or file):
        raise UsageError("say what to edit: --set PATH=VALUE, --unset PATH or --file FILE")
    work = _Edit(id, settings or [], unset or [], file, actor or whoami())
    run(work.tell(as_json=as_json) if dry_run else work.send(as_json=as_json))
    raise typer.Exit(OK)


@dataclass(frozen=True, slots=True)
class _Edit:
    """One run of ``dead edit``."""

    id: int
    settings: Sequence[str]
    unset: Sequence[str]
    file: str | None
    actor: str

    async def tell(self, *, as_json: bool) -> None:
        """Show the new command and what would become of it."""
        from schemas import parse_command
        from worker.operations.dry_run import previewing

        async with writing() as pool:
            letter = await self._letter(pool)
            new = self._edited(letter)
            command = parse_command(new.body)
            async with previewing(pool) as preview:
                await preview.read([command])
                text = preview.tell(command, _unpoisoned(letter))
        shown = {"letter": self.id, "what_it_would_do": text, "command": from_json(new.body)}
        console.print_document(shown, as_json=as_json)

    async def send(self, *, as_json: bool) -> None:
        """Send it, and then write it down: an edit that was interrupted between the two can be made again."""
        from worker.cli.send import stored_shards
        from worker.ledger import dead_letters
        from worker.operations.sending import Sender

        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(writing())
            letter = await self._letter(pool)
            new = self._edited(letter)
            link = await stack.enter_async_context(broker())
            await (await Sender.open(link.connection, await stored_shards(pool))).send([new])
            async with pool.acquire() as connection:
                note = f"sent as {new.id}"
                await dead_letters.mark(
                    connection, [letter.id], "resolved", actor=self.actor, action="edited", detail=note
                )
        console.print_document({"letter": letter.id, "command": new.id, "node": new.node}, as_json=as_json)

    async def _letter(self, pool: asyncpg.Pool) -> Letter:
        from worker.ledger import dead_letters

        async with pool.acquire() as connection:
            letter = await dead_letters.find(connection, self.id)
        if letter is None:
            raise OperationError(f"there is no dead letter {self.id}")
        if letter.state not in dead_letters.UNSETTLED:
            raise OperationError(f"letter {self.id} is {letter.state} already: `dead show {self.id}` tells why")
        return letter

    def _edited(self, letter: Letter) -> Sendable:
        from worker.engine.envelope import Envelope
        from worker.operations.producing import RefusedLineError, Sendable, complete

        document = _object(letter.body or b"" if self.file is None else _read(self.file))
        for name in _OWN:
            document.pop(name, None)
        for path in self.unset:
            _at(document, path, remove=True)
        for setting in self.settings:
            path, equals, text = setting.partition("=")
            if not equals or path in _OWN:
                raise UsageError(f"--set {setting}: expected PATH=VALUE, of a field other than id and version")
            _at(document, path, _value(text))
        content = {name: value for name, value in document.items() if name != "issued_at"}
        digest = blake2b(
            f"{letter.id} {letter.first_seen} {letter.attempts}\n".encode() + _canonical(content)
        ).hexdigest()
        try:
            made = complete(to_json({**document, "id": str(uuid5(_EDITS, digest))}))
        except RefusedLineError as error:
            raise OperationError(f"the edited command is not valid: {error}") from None
        return Sendable(made.body, made.node, made.kind, made.id, Envelope.of_letter(letter.headers))


def _unpoisoned(letter: Letter) -> Letter:
    """The letter as preview may decide it: an edited command is not the one that ended its workers."""
    from dataclasses import replace

    return replace(letter, reason="edited")


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None


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


def _canonical(content: dict[str, Any]) -> bytes:
    import json

    return json.dumps(content, sort_keys=True).encode()
