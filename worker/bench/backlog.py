"""The rate at which a backlog is worked off: publish first, then let the subject run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.bench.subjects import machine_busy_seconds
from worker.cli.faults import CommandError

if TYPE_CHECKING:
    from worker.bench.database import Database
    from worker.bench.loads import Command
    from worker.bench.rig import Answer, Rig
    from worker.bench.sides import Side

_POLL_SECONDS: Final = 0.02
_STALLED_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One side's run over one backlog."""

    side: str
    commands: int
    rate: float
    """Commands per second, from the first answer to the last."""
    cpu_microseconds: float
    """Processor time of the measured processes per command."""
    machine_cpu: float
    """How many processors were busy on average, with whatever they did."""
    commits: float
    """Transactions that wrote something, per command."""
    wal_bytes: float
    """Bytes that the database wrote ahead, per command."""
    answer_bytes: int
    """Mean size of an answer."""


async def work_off(rig: Rig, database: Database, side: Side, commands: Sequence[Command]) -> Run:
    """Let a side work off these commands.

    Raises:
        CommandError: an answer is missing, came twice or says no.
    """
    await rig.purge()
    commits, written = await database.commits(), await database.written_bytes()
    side.hold()
    try:
        await rig.send(commands, side.route())
        cpu, busy = side.cpu_seconds(), machine_busy_seconds()
        began = asyncio.get_running_loop().time()
    finally:
        side.release()
    rate, ended = await _watch(rig, side, len(commands))
    cpu, busy = side.cpu_seconds() - cpu, machine_busy_seconds() - busy
    answers = await rig.drain(len(commands))
    _audit(commands, answers, told=side.tells)
    return Run(
        side.name,
        len(commands),
        rate,
        cpu * 1e6 / len(commands),
        busy / (ended - began),
        (await database.commits() - commits) / len(commands),
        (await database.written_bytes() - written) / len(commands),
        sum(answer.size_bytes for answer in answers) // len(answers),
    )


async def carry_out(rig: Rig, side: Side, commands: Sequence[Command]) -> None:
    """Let a side work off commands that nothing is measured on.

    Raises:
        CommandError: as :func:`work_off`.
    """
    if not commands:
        return
    await rig.purge()
    await rig.send(commands, side.route())
    _audit(commands, await rig.drain(len(commands)), told=side.tells)


async def _watch(rig: Rig, side: Side, count: int) -> tuple[float, float]:
    """Follow the answers' queue until it holds ``count``; the rate since the first was seen, and the time then."""
    clock = asyncio.get_running_loop().time
    first: tuple[int, float] | None = None
    last = (0, clock())
    while last[0] < count:
        depth, now = await rig.depth(), clock()
        if depth > last[0]:
            first = first or (depth, now)
            last = (depth, now)
        elif now - last[1] > _STALLED_SECONDS:
            raise CommandError(f"{side.name}: {last[0]} of {count} answers, and no more for {_STALLED_SECONDS:.0f} s")
        side.check()
        await asyncio.sleep(_POLL_SECONDS)
    if first is None or last[0] == first[0]:
        raise CommandError(f"{count} commands are too few to measure a rate: give more")
    return (last[0] - first[0]) / (last[1] - first[1]), last[1]


def _audit(commands: Sequence[Command], answers: Sequence[Answer], *, told: bool) -> None:
    """Each command was answered once; where the answer tells, it was applied."""
    missing = Counter(command.id for command in commands)
    missing.subtract(answer.command for answer in answers)
    if wrong := [id_ for id_, count in missing.items() if count]:
        raise CommandError(f"{len(wrong)} of {len(commands)} commands were not answered exactly once, as {wrong[0]}")
    if told and (refused := [answer.command for answer in answers if not answer.applied]):
        raise CommandError(f"{len(refused)} of {len(commands)} commands were not applied, as {refused[0]}")
