"""The rate at which a backlog is worked off: publish first, then let the subject run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.bench.subjects import machine_busy_seconds
from worker.errors import OperationError

if TYPE_CHECKING:
    from worker.bench.database import Database
    from worker.bench.loads import Command
    from worker.bench.rig import Rig, TimedAnswer
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
    repeated: int
    """Answers that came once more than they had to."""


async def work_off(rig: Rig, database: Database, side: Side, commands: Sequence[Command]) -> Run:
    """Let a side work off these commands.

    Raises:
        OperationError: an answer is missing or says no.
    """
    await database.settled()
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
    answers = await rig.drain([command.id for command in commands])
    own = _own(commands, answers, told=side.tells)
    return Run(
        side=side.name,
        commands=len(commands),
        rate=rate,
        cpu_microseconds=cpu * 1e6 / len(commands),
        machine_cpu=busy / (ended - began),
        commits=(await database.commits() - commits) / len(commands),
        wal_bytes=(await database.written_bytes() - written) / len(commands),
        answer_bytes=sum(answer.size_bytes for answer in own.values()) // len(own),
        repeated=len(answers) - len(own),
    )


async def carry_out(rig: Rig, side: Side, commands: Sequence[Command]) -> None:
    """Let a side work off commands that nothing is measured on.

    Raises:
        OperationError: as :func:`work_off`.
    """
    if not commands:
        return
    await rig.purge()
    await rig.send(commands, side.route())
    _own(commands, await rig.drain([command.id for command in commands]), told=side.tells)


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
            raise OperationError(f"{side.name}: {last[0]} of {count} answers, and no more for {_STALLED_SECONDS:.0f} s")
        side.check()
        await asyncio.sleep(_POLL_SECONDS)
    if first is None or last[0] == first[0]:
        raise OperationError(f"{count} commands are too few to measure a rate: give more")
    return (last[0] - first[0]) / (last[1] - first[1]), last[1]


def _own(commands: Sequence[Command], answers: Sequence[TimedAnswer], *, told: bool) -> dict[str, TimedAnswer]:
    """The answer to each command. One may come twice, the same: outcomes are published at least once.

    Raises:
        OperationError: one is missing, or says that its command was not applied.
    """
    ids = {command.id for command in commands}
    own = {answer.command: answer for answer in answers if answer.command in ids}
    if missing := ids - own.keys():
        raise OperationError(f"{len(missing)} of {len(ids)} commands were not answered, as {missing.pop()}")
    if told and (refused := [answer.command for answer in own.values() if not answer.applied]):
        raise OperationError(f"{len(refused)} of {len(ids)} commands were not applied, as {refused[0]}")
    return own
