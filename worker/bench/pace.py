"""Latency at a fixed rate: commands are sent on time, whether or not the answers to earlier ones have come."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from worker.bench.figures import percentile, significant
from worker.bench.results import Latency
from worker.bench.rig import command_of
from worker.errors import OperationError

if TYPE_CHECKING:
    from worker.bench.loads import Command
    from worker.bench.rig import Rig
    from worker.bench.sides import Side
    from worker.broker.wire import Message

_PATIENCE_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Clocks:
    """When each command was sent, and how long its answer took."""

    count: int
    sent: dict[str, float] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, message: Message, at: float) -> None:
        sent = self.sent.get(command_of(message.body))
        if sent is not None:
            self.took.append(at - sent)
            if len(self.took) == self.count:
                self.done.set()


async def paced(rig: Rig, side: Side, commands: Sequence[Command], rate: float, about: str) -> Latency:
    """Send so many commands per second, and take the time until each outcome arrives here.

    Raises:
        OperationError: not every outcome came.
    """
    await rig.purge()
    clocks = _Clocks(len(commands))
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        async with rig.hearing(clocks.take):
            await _send(rig, side, commands, rate, clocks)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await clocks.done.wait()
    except TimeoutError:
        raise OperationError(f"{len(clocks.took)} of {len(commands)} outcomes came at {rate:.0f} a second") from None
    finally:
        gc.enable()
        gc.unfreeze()
    took, late = sorted(clocks.took), sorted(clocks.late)

    def milliseconds(times: Sequence[float], share: float) -> float:
        return significant(percentile(times, share) * 1e3)

    return Latency(
        scenario=about,
        side=side.name,
        rate=significant(rate),
        commands=len(commands),
        p50=milliseconds(took, 0.5),
        p90=milliseconds(took, 0.9),
        p99=milliseconds(took, 0.99),
        highest=milliseconds(took, 1.0),
        late_p99=milliseconds(late, 0.99),
    )


async def _send(rig: Rig, side: Side, commands: Sequence[Command], rate: float, clocks: _Clocks) -> None:
    """Send each command when it is due; what is due together goes out in one write."""
    loop = asyncio.get_running_loop()
    route = side.route()
    sending: set[asyncio.Task[None]] = set()
    began, at = loop.time(), 0
    while at < len(commands):
        now = loop.time()
        stop = min(len(commands), int((now - began) * rate) + 1)
        if due := commands[at:stop]:
            for place, command in enumerate(due, at):
                clocks.sent[command.id] = now
                clocks.late.append(now - began - place / rate)
            task = asyncio.create_task(rig.send(due, route))
            sending.add(task)
            task.add_done_callback(sending.discard)
            at = stop
        await asyncio.sleep(max(0.0, began + at / rate - loop.time()))
    await asyncio.gather(*sending)
