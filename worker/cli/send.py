"""``nodeledger send``: publish commands, one JSON object a line."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias
from uuid import UUID

import typer

from schemas.errors import NoAnswerError
from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.errors import SettingsError, UnreachableError
from worker.servers import client, writing

if TYPE_CHECKING:
    from schemas import Outcome
    from schemas.client import Answer, Client, Message, Pending

FileArgument = Annotated[str, typer.Argument(metavar="[FILE]", help="JSON lines; - is standard input.")]
WaitFlag = Annotated[bool, typer.Option("--wait", help="Print each final outcome, one JSON object a line.")]
TimeoutOption = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="With --wait: how long to wait for each outcome.")
]
RawFlag = Annotated[bool, typer.Option("--raw", help="Publish each line as it is, right or wrong, if it names a node.")]

_NAMED: Final = 20
_SILENT: Final = "silent"
Advance: TypeAlias = Callable[[int], None]


@dataclass(slots=True)
class Tally:
    """How many lines were sent and refused, and what became of them."""

    sent: int = 0
    refused: int = 0
    nameless: int = 0
    """Sent without an id that could be read, so that no answer can come."""
    ended: Counter[str] = field(default_factory=Counter)
    """How many commands are applied, rejected, dead, parked, or without an answer."""

    def line(self, *, waited: bool) -> str:
        """All of it."""
        parts = [f"{self.sent} sent", f"{self.refused} refused here"]
        if waited:
            parts += [f"{self.ended[status]} {status}" for status in ("applied", "rejected", "dead", "parked")]
            parts.append(f"{self.ended[_SILENT]} without an answer")
        if waited and self.nameless:
            parts.append(f"{self.nameless} without an id to be answered by: see `nodeledger dead list`")
        return ", ".join(parts)

    @property
    def failed(self) -> bool:
        """Whether anything is not as it was wanted."""
        return bool(self.refused or self.nameless or self.ended.total() > self.ended["applied"])


def send(
    file: FileArgument = "-",
    wait: WaitFlag = False,
    timeout: TimeoutOption = 60.0,
    raw_lines: RawFlag = False,
    as_json: console.JsonFlag = False,
) -> None:
    """Publish commands, one JSON object a line, filling in version, id and issued_at where they are missing.

    A line that is no valid command is reported on standard error and left out;
    the others are still sent. With --json, and without --wait, one JSON object
    a command says what was sent.
    """
    from worker.operations.producing import complete, raw

    work = Sending(raw if raw_lines else complete, wait=wait, timeout=timeout, as_json=as_json)
    raise typer.Exit(run(work.run(file)))


class Sending:
    """One run of ``nodeledger send``."""

    def __init__(self, prepare: Callable[[bytes], Message], *, wait: bool, timeout: float, as_json: bool) -> None:
        self._prepare = prepare
        self._wait = wait
        self._timeout = timeout
        self._as_json = as_json
        self._tally = Tally()

    async def run(self, file: str) -> int:
        """Send the file's lines; the exit status."""
        from worker.cli.common.lines import open_input
        from worker.operations.shards import shards

        descriptor = open_input(file)
        if os.isatty(descriptor):
            console.note("reading commands from the terminal, one JSON object a line; Ctrl-D ends them")
        async with client(await shards()) as ledger:
            with console.progress("sending") as advance:
                await (self._ask if self._wait else self._publish)(ledger, descriptor, advance)
        console.note(self._tally.line(waited=self._wait))
        if self._wait and not self._tally.ended:
            return FINDING
        return FINDING if self._tally.failed else OK

    async def _publish(self, ledger: Client, descriptor: int, advance: Advance) -> None:
        async for messages in self._prepared(descriptor):
            await ledger.publish(messages)
            self._tally.sent += len(messages)
            advance(len(messages))
            if self._as_json:
                for message in messages:
                    console.print_json_line({"id": message.id, "kind": message.kind, "node": message.node})

    async def _ask(self, ledger: Client, descriptor: int, advance: Advance) -> None:
        silent: list[Pending] = []
        asked = self._asked(ledger, descriptor)
        async for pending in ledger.ask_many(asked, seconds=self._timeout, on_parked=_tell_parked):
            advance(1)
            if pending.answer is None:
                await pending.over
                self._tally.nameless += 1
            elif isinstance(pending.answer.exception(), NoAnswerError):
                silent.append(pending)
            else:
                self._tell(pending.answer.result())
        await self._account_for(silent)

    async def _asked(self, ledger: Client, descriptor: int) -> AsyncIterator[Message]:
        """The messages whose answers are awaited: an id that is sent again is answered once."""
        asked: set[UUID] = set()
        async for messages in self._prepared(descriptor):
            for message in messages:
                self._tally.sent += 1
                if message.id in asked:
                    await ledger.publish([message])
                    continue
                if message.id is not None:
                    asked.add(message.id)
                yield message

    async def _prepared(self, descriptor: int) -> AsyncIterator[list[Message]]:
        from worker.cli.common.lines import batches
        from worker.operations.producing import RefusedLineError

        async for lines in batches(descriptor):
            messages = []
            for number, line in lines:
                try:
                    messages.append(self._prepare(line))
                except RefusedLineError as error:
                    self._tally.refused += 1
                    console.note(f"line {number}: {error}")
            yield messages

    def _tell(self, answer: Answer) -> None:
        outcome = answer.outcome
        self._tally.ended[outcome.status] += 1
        if outcome.status == "dead":
            why = f" ({outcome.dead_letter.reason})" if outcome.dead_letter is not None else ""
            console.note(f"{outcome.command} on {outcome.node} is in the dead letters{why}: see `nodeledger dead list`")
        else:
            sys.stdout.buffer.write(answer.body + b"\n")
            sys.stdout.buffer.flush()

    async def _account_for(self, silent: Sequence[Pending]) -> None:
        """Count what had no final outcome in time by what is known of it."""
        letters = await _dead([pending.message.id for pending in silent if pending.message.id is not None])
        for told, pending in enumerate(silent):
            letter = letters.get(pending.message.id)
            status = "dead" if letter is not None else "parked" if pending.parked is not None else _SILENT
            self._tally.ended[status] += 1
            if told < _NAMED:
                why = letter or f"no final outcome within {self._timeout:g} s" + ("; parked" if pending.parked else "")
                console.note(f"{pending.message.id}: {why}")


def _tell_parked(outcome: Outcome) -> None:
    why = "; ".join(reason.detail for reason in outcome.reasons) or "its node's hypervisor does not answer"
    console.note(f"{outcome.command} on {outcome.node} is parked: {why}")


async def _dead(ids: Sequence[UUID]) -> dict[UUID | None, str]:
    """Which commands are in the dead letters, and why, as far as the database can be asked."""
    import asyncpg

    from worker.ledger import dead_letters

    if not ids:
        return {}
    with suppress(UnreachableError, SettingsError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with writing() as pool:
            found = await dead_letters.of_commands(pool, ids)
        return {one.command: f"dead letter {one.letter}: {one.reason}: {one.detail}" for one in found}
    return {}
