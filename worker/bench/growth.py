"""How rate and latency change with the number of nodes, instances, shards, workers, and the depth of the backlog."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from worker.bench.figures import spread
from worker.bench.loads import Load, churn, claims
from worker.bench.pace import paced
from worker.bench.results import Point
from worker.bench.rounds import Bench, started
from worker.bench.sharing import share_out
from worker.bench.sides import Workers

if TYPE_CHECKING:
    from worker.bench.backlog import Run
    from worker.bench.results import Latency, Results

_SPREAD: Final = Load(100, claims)
_PACED_SECONDS: Final = 5.0
_FULL: Final = 0.9


@dataclass(frozen=True, slots=True)
class Step:
    """One place on an axis."""

    value: int
    load: Load = _SPREAD
    workers: int = 1
    commands: int | None = None
    """How many in a run; ``None``: as many as was asked for."""


AXES: Final[dict[str, tuple[Step, ...]]] = {
    "nodes": tuple(Step(count, Load(count, claims)) for count in (1, 10, 100, 1000, 10_000)),
    "instances on a node": tuple(
        Step(count, Load(1, churn, filled=count, fresh=True)) for count in (0, 100, 1000, 10_000)
    ),
    "shards with work": tuple(Step(count, replace(_SPREAD, shards=count)) for count in (1, 2, 4, 8, 16)),
    "workers": tuple(Step(count, workers=count) for count in (1, 2, 4)),
    "backlog": tuple(Step(count, commands=count) for count in (500, 2000, 8000, 32_000)),
}


async def grow(bench: Bench, results: Results, axis: str) -> None:
    """Measure every place on one axis."""
    for step in AXES[axis]:
        bench.say(f"{axis}: {step.value:,}")
        results.growth.append(await _measured(bench, axis, step))


async def _measured(bench: Bench, axis: str, step: Step) -> Point:
    async with AsyncExitStack() as stack:
        side = await stack.enter_async_context(started(Workers(bench.rig, step.workers)))
        names = await bench.nodes(step.load, side)
        await bench.run(side, step.load, names, max(bench.warm_up, step.load.nodes))
        if step.workers > 1:
            await share_out(bench, side, step.load, names)
        count = step.commands or bench.options.commands
        runs = [await bench.run(side, step.load, names, count) for _ in range(bench.options.repeats)]
        rate = spread([run.rate for run in runs])
        commands = step.load.commands(names, int(rate.median / 2 * _PACED_SECONDS))
        latency = await paced(bench.rig, side, commands, rate.median / 2, axis)
    return _point(axis, step, runs, latency)


def _point(axis: str, step: Step, runs: list[Run], latency: Latency) -> Point:
    return Point(
        axis=axis,
        value=step.value,
        rate=spread([run.rate for run in runs]),
        cpu_microseconds=spread([run.cpu_microseconds for run in runs]),
        machine_cpus_busy=spread([run.machine_cpu for run in runs]),
        p50_milliseconds=latency.p50,
        p99_milliseconds=latency.p99,
        limit="; ".join(limits(runs, step.workers)),
    )


def limits(runs: list[Run], workers: int) -> Iterator[str]:
    """What kept the rate from being higher, as far as the use of the processors tells."""
    own = spread([run.rate * run.cpu_microseconds / 1e6 / workers for run in runs]).median
    machine = spread([run.machine_cpu for run in runs]).median
    if own > _FULL:
        yield "each worker uses its processor up"
    if machine > _FULL * (os.cpu_count() or 1):
        yield "the machine's processors are all in use"
    elif own <= _FULL:
        yield "waits: for confirms, for commits or between queues"
