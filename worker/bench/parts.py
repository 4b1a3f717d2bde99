"""The parts of a run: the comparisons, and beside them latency, statements, start, memory and growth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from statistics import median
from typing import Final

from worker.bench.backlog import carry_out
from worker.bench.criteria import HALF_LOAD
from worker.bench.growth import AXES, grow
from worker.bench.loads import Load, claims
from worker.bench.pace import paced
from worker.bench.results import Memory, Results, Start, Statements
from worker.bench.rounds import Bench, started
from worker.bench.scenarios import PAIRS, SCENARIOS, Scenario
from worker.bench.sharing import by_turns, two_workers
from worker.bench.sides import Loop, Workers
from worker.bench.wiretap import tapped
from worker.errors import OperationError
from worker.settings import load_settings

_SPREAD: Final = Load(100, claims)
_PACED_SECONDS: Final = 8.0
_PACES: Final = (HALF_LOAD, 500.0, 100.0)
_TRICKLE: Final = 200.0
_CHUNK: Final = 10_000
_POLL_SECONDS: Final = 0.005
_START_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a run, by its name; ``measure`` adds what it finds to the results."""

    name: str
    title: str
    measure: Callable[[Bench, Results], Awaitable[None]]
    usual: bool = True
    """Whether it is measured unless others are asked for."""


def _comparing(scenario: Scenario) -> Part:
    async def measure(bench: Bench, results: Results) -> None:
        results.comparisons[scenario.name] = await bench.compare(scenario)

    return Part(scenario.name, scenario.title, measure)


def _pairing(large: Scenario, small: Scenario) -> Part:
    title = f"{large.title} beside {small.title}"
    return Part(f"{large.name}-beside-{small.name}", title, partial(by_turns, large=large, small=small))


async def half_load(bench: Bench, results: Results) -> None:
    """Latency of the worker and of the bare loop at half the rate that a worker must carry, and at less.

    Sending and listening take their share of the processors here, which they do not at full load.
    """
    for scenario in SCENARIOS[:2]:
        load = scenario.load
        async with started(Workers(bench.rig)) as workers:
            names = await bench.nodes(load, workers)
            warm = await bench.run(workers, load, names, max(bench.warm_up, load.nodes))
            async with started(Loop(bench.rig, warm.answer_bytes)) as loop:
                await bench.run(loop, load, names, bench.warm_up)
                for rate in _PACES:
                    for side in (loop, workers):
                        bench.say(f"{scenario.title}: latency of the {side.name} at {rate:.0f} a second")
                        commands = load.commands(names, min(bench.options.commands, int(rate * _PACED_SECONDS)))
                        results.latencies.append(await paced(bench.rig, side, commands, rate, scenario.title))


async def statements(bench: Bench, results: Results) -> None:
    """What a small and a large batch ask of the database; not timed, for somebody listens in."""
    async with tapped(load_settings().required("database_url")) as tap:
        side = Workers(bench.rig, settings={"NODELEDGER_DATABASE_URL": tap.url})
        async with started(side):
            names = await bench.nodes(_SPREAD, side)
            await carry_out(bench.rig, side, _SPREAD.commands(names, bench.warm_up))
            for rate in (_TRICKLE, None):
                bench.say("statements of " + ("small batches" if rate else "large batches"))
                tap.counts.clear()
                commands = _SPREAD.commands(names, bench.warm_up)
                if rate:
                    await paced(bench.rig, side, commands, rate, "statements")
                else:
                    await bench.run(side, _SPREAD, names, bench.warm_up)
                batches = len(tap.counts)
                each = median(tap.counts)
                results.statements.append(
                    Statements(len(commands) / batches, batches, each, sum(tap.counts) / len(commands))
                )


async def start(bench: Bench, results: Results) -> None:
    """Memory after work for a thousand nodes, and the first outcome of workers that start beside what they left."""
    load = Load(min(1000, bench.options.commands), claims)
    total = 100_000 if bench.options.commands > _CHUNK else bench.options.commands
    async with started(Workers(bench.rig)) as side:
        names = await bench.nodes(load, side)
        for at in range(0, total, _CHUNK):
            bench.say(f"filling the database: {at:,} of {total:,} allocations")
            await carry_out(bench.rig, side, load.commands(names, min(_CHUNK, total - at)))
        results.memory.append(Memory(load.nodes, side.resident_mib()))
    for turn in range(bench.options.repeats):
        bench.say(f"start beside {total:,} allocations, {turn + 1} of {bench.options.repeats}")
        results.starts.append(Start(total, *await _first_outcome(bench, load, names)))


async def _first_outcome(bench: Bench, load: Load, names: list[str]) -> tuple[float, float]:
    """Seconds from starting a worker until the command that waited for it is answered, and its processor time."""
    clock = asyncio.get_running_loop().time
    await bench.rig.purge()
    side = Workers(bench.rig)
    await bench.rig.send(load.commands(names, 1), side.route())
    began = clock()
    try:
        starting = asyncio.create_task(side.start())
        while not await bench.rig.depth():
            if clock() - began > _START_SECONDS:
                raise OperationError(f"no outcome within {_START_SECONDS:.0f} s of a worker's start")
            await asyncio.sleep(_POLL_SECONDS)
        took = clock() - began
        await starting
        cpu = side.cpu_seconds()
    finally:
        await side.stop()
    return took, cpu


PARTS: Final = (
    *map(_comparing, SCENARIOS),
    *starmap(_pairing, PAIRS),
    Part("two-workers", "two workers beside one", two_workers),
    Part("half-load", "latency at half load", half_load),
    Part("statements", "statements of small and large batches", statements),
    Part("start", "memory with 1,000 nodes, and start beside 100,000 allocations", start),
    *(
        Part(f"growth-{axis.split()[0]}", f"rate and latency against {axis}", partial(grow, axis=axis), usual=False)
        for axis in AXES
    ),
)
