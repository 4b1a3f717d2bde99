"""One run of the bench: every scenario in turn, the sides of each by turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import uuid4

from worker.bench.backlog import Run, carry_out, work_off
from worker.bench.loads import Load, command
from worker.bench.results import Comparison
from worker.bench.sides import Loop, Workers

if TYPE_CHECKING:
    from worker.bench.database import Database
    from worker.bench.rig import Rig
    from worker.bench.scenarios import Scenario
    from worker.bench.sides import Side

S = TypeVar("S", bound="Side")

_WARM_UP: Final = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    commands: int
    repeats: int


@asynccontextmanager
async def started(side: S) -> AsyncIterator[S]:
    """A side that runs, and is ended at the end."""
    try:
        await side.start()
        yield side
    finally:
        await side.stop()


class Bench:
    """Measures through a rig and a database; ``say`` is told what is being done."""

    def __init__(self, rig: Rig, database: Database, options: Options, say: Callable[[str], None]) -> None:
        self.rig = rig
        self.database = database
        self.options = options
        self.say = say
        self._prefix = f"bench-{uuid4().hex[:8]}"
        self._nodes: list[str] = []

    async def compare(self, scenario: Scenario) -> Comparison:
        """The bare loop and the worker by turns, each warmed up."""
        load = scenario.load
        async with AsyncExitStack() as stack:
            workers = await stack.enter_async_context(started(Workers(self.rig)))
            names = await self.nodes(load, workers)
            warm = await self.run(workers, load, names, max(_WARM_UP, load.nodes))
            loop = await stack.enter_async_context(started(Loop(self.rig, warm.answer_bytes)))
            await self.run(loop, load, names, _WARM_UP)
            runs: dict[str, list[Run]] = {loop.name: [], workers.name: []}
            for turn in range(self.options.repeats):
                for side in (loop, workers):
                    self.say(f"{scenario.title}: {side.name}, {turn + 1} of {self.options.repeats}")
                    if load.fresh and side.tells:
                        names = await self.nodes(load, workers)
                    run = await self.run(side, load, names, self.options.commands)
                    runs[side.name].append(run)
        return Comparison(scenario.name, scenario.title, runs)

    async def run(self, side: Side, load: Load, names: list[str], count: int) -> Run:
        """One backlog of new commands."""
        return await work_off(self.rig, self.database, side, load.commands(names, count))

    async def nodes(self, load: Load, workers: Workers) -> list[str]:
        """Register the nodes of a load, and fill them."""
        names = load.names(f"{self._prefix}-{len(self._nodes)}")
        self._nodes += names
        await carry_out(self.rig, workers, load.puts(names))
        await carry_out(self.rig, workers, load.filling(names))
        return names

    async def clean_up(self) -> None:
        """Remove every node that was registered, with all it holds."""
        async with started(Workers(self.rig)) as workers:
            await carry_out(self.rig, workers, [command("node.remove", name, force=True) for name in self._nodes])
        self._nodes.clear()
