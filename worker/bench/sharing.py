"""Workers by turns: one beside two, and one under a large load beside a small one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from worker.bench.loads import Load, claims
from worker.bench.results import Comparison
from worker.bench.rounds import Bench, started
from worker.bench.sides import Workers
from worker.errors import OperationError

if TYPE_CHECKING:
    from worker.bench.backlog import Run
    from worker.bench.results import Results
    from worker.bench.scenarios import Scenario
    from worker.bench.sides import Side

_SPREAD: Final = Load(100, claims)
_PATIENCE_SECONDS: Final = 60.0
_FAIR: Final = 0.5


async def two_workers(bench: Bench, results: Results) -> None:
    """One worker and two by turns, on all shards."""
    runs: dict[str, list[Run]] = {}
    for turn in range(bench.options.repeats):
        for count in (1, 2):
            bench.say(f"{count} of 2 workers, {turn + 1} of {bench.options.repeats}")
            side = Workers(bench.rig, count)
            async with started(side):
                names = await bench.nodes(_SPREAD, side)
                await share_out(bench, side, _SPREAD, names)
                run = await bench.run(side, _SPREAD, names, bench.options.commands)
                runs.setdefault(side.name, []).append(run)
    results.comparisons["two-workers"] = Comparison("two-workers", "claims over 100 nodes", runs)


async def by_turns(bench: Bench, results: Results, large: Scenario, small: Scenario) -> None:
    """One worker under two loads by turns: a shared machine is not as fast at one time as at another."""
    name = f"{large.name} beside {small.name}"
    runs: dict[str, list[Run]] = {small.name: [], large.name: []}
    async with started(Workers(bench.rig)) as side:
        names = {each.name: await bench.nodes(each.load, side) for each in (small, large)}
        for each in (small, large):
            await bench.run(side, each.load, names[each.name], max(bench.warm_up, each.load.nodes))
        for turn in range(bench.options.repeats):
            for each in (small, large):
                bench.say(f"{name}: {each.title}, {turn + 1} of {bench.options.repeats}")
                own = await bench.nodes(each.load, side) if each.load.fresh else names[each.name]
                runs[each.name].append(await bench.run(side, each.load, own, bench.options.commands))
    results.comparisons[name] = Comparison(name, f"one worker, {small.title} and {large.title} by turns", runs)


async def share_out(bench: Bench, side: Side, load: Load, names: list[str]) -> None:
    """Keep the workers at it until each does at least half of a fair share.

    Raises:
        OperationError: they do not come to share the work.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + _PATIENCE_SECONDS
    while clock() < deadline:
        before = [subject.cpu_seconds() for subject in side.subjects]
        await bench.run(side, load, names, bench.warm_up)
        used = [subject.cpu_seconds() - cpu for subject, cpu in zip(side.subjects, before, strict=True)]
        if min(used) >= _FAIR * sum(used) / len(used):
            return
    raise OperationError(f"{len(side.subjects)} workers do not share the work")
