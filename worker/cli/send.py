"""``nodeledger send``: publish commands, one JSON object a line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.errors import SettingsError, UnreachableError
from worker.servers import broker, writing

if TYPE_CHECKING:
    from worker.operations.producing import Sendable
    from worker.operations.sending import Awaited, Sender

FileArgument = Annotated[str, typer.Argument(metavar="[FILE]", help="JSON lines; - is standard input.")]
WaitFlag = Annotated[bool, typer.Option("--wait", help="Print each final outcome, one JSON object a line.")]
TimeoutOption = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="With --wait: how long to wait once all is sent.")
]
RawFlag = Annotated[bool, typer.Option("--raw", help="Publish each line as it is, right or wrong, if it names a node.")]

_NAMED: Final = 20


@dataclass(slots=True)
class Tally:
    """How many lines were sent and refused."""

    sent: int = 0
    refused: int = 0


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

    def __init__(self, prepare: Callable[[bytes], Sendable], *, wait: bool, timeout: float, as_json: bool) -> None:
        self._prepare = prepare
        self._wait = wait
        self._timeout = timeout
        self._as_json = as_json
        self._tally = Tally()

    async def run(self, file: str) -> int:
        """Send the file's lines; the exit status."""
        from worker.cli.common.lines import open_input
        from worker.operations.sending import Awaited, OutcomeQueue, Sender
        from worker.operations.shards import shards

        descriptor = open_input(file)
        if os.isatty(descriptor):
            console.note("reading commands from the terminal, one JSON object a line; Ctrl-D ends them")
        async with AsyncExitStack() as stack:
            link = await stack.enter_async_context(broker())
            awaited = Awaited()
            reply_to = (
                await OutcomeQueue(awaited, _print_body, console.note).open(link.connection) if self._wait else None
            )
            sender = await Sender.open(link.connection, await shards(), reply_to)
            await self._send_all(descriptor, sender, awaited)
            if self._wait:
                await self._await_all(awaited, link.tap.lost)
        return self._summary(awaited)

    async def _send_all(self, descriptor: int, sender: Sender, awaited: Awaited) -> None:
        from worker.cli.common.lines import batches

        with console.progress("sending") as advance:
            async for lines in batches(descriptor):
                commands = self._prepared(lines)
                if self._wait:
                    awaited.expect([str(command.id) for command in commands if command.id])
                await sender.send(commands)
                self._tally.sent += len(commands)
                advance(len(commands))
                if self._as_json and not self._wait:
                    for command in commands:
                        console.print_json_line({"id": command.id, "kind": command.kind, "node": command.node})

    def _prepared(self, lines: Sequence[tuple[int, bytes]]) -> list[Sendable]:
        from worker.operations.producing import RefusedLineError

        commands = []
        for number, line in lines:
            try:
                commands.append(self._prepare(line))
            except RefusedLineError as error:
                self._tally.refused += 1
                console.note(f"line {number}: {error}")
        return commands

    async def _await_all(self, awaited: Awaited, lost: asyncio.Event) -> None:
        """Wait until every outcome is there, the time is over, or the connection is lost."""
        await awaited.wait(lost, self._timeout)
        missed = sorted(awaited.open)[:_NAMED]
        dead = await _dead(missed)
        for id_ in missed:
            console.note(f"{id_}: {dead.get(id_) or f'no final outcome within {self._timeout:g} s'}")

    def _summary(self, awaited: Awaited) -> int:
        parts = [f"{self._tally.sent} sent", f"{self._tally.refused} refused here"]
        if self._wait:
            parts += [f"{awaited.counts[status]} {status}" for status in ("applied", "rejected", "dead")]
            parts.append(f"{len(awaited.open)} without a final outcome")
        console.note(", ".join(parts))
        failed = self._tally.refused or awaited.open or awaited.counts["rejected"] or awaited.counts["dead"]
        return FINDING if failed or (self._wait and not awaited.counts) else OK


async def _dead(ids: Sequence[str]) -> dict[str, str]:
    """Which commands are in the dead letters, and why, as far as the database can be asked."""
    import asyncpg

    from worker.ledger import dead_letters

    with suppress(UnreachableError, SettingsError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with writing() as pool:
            found = await dead_letters.of_commands(pool, [UUID(id_) for id_ in ids])
        return {str(one.command): f"dead letter {one.letter}: {one.reason}: {one.detail}" for one in found}
    return {}


def _print_body(body: bytes) -> None:
    sys.stdout.buffer.write(body + b"\n")
    sys.stdout.buffer.flush()
