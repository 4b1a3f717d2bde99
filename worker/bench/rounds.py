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
from worker.bench.sides import Loop, Plain, Workers
from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.bench.database import Database
    from worker.bench.rig import Rig
    from worker.bench.scenarios import Scenario
    from worker.bench.sides import Side

S = TypeVar("S", bound="Side")

_WARM_UP: Final = 1000
_REMOVED_AT_ONCE: Final = 50
# It is so slow that it would take most of the time.
_PLAIN_SHARE: Final = 4


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
        self.prefix = f"bench-{uuid4().hex[:8]}"
        self._nodes: list[str] = []

    @property
    def warm_up(self) -> int:
        """Commands that a side works off before it is measured; a node that is new is loaded then, too."""
        return min(_WARM_UP, self.options.commands)

    async def compare(self, scenario: Scenario) -> Comparison:
        """The bare loop, the worker and perhaps the plain worker by turns, each warmed up."""
        load = scenario.load
        async with AsyncExitStack() as stack:
            workers = await stack.enter_async_context(started(Workers(self.rig)))
            names = await self.nodes(load, workers)
            warm = await self.run(workers, load, names, max(self.warm_up, load.nodes))
            sides: list[Side] = [Loop(self.rig, warm.answer_bytes)]
            if scenario.plain and load_settings().database_owner_url is not None:
                sides.append(Plain(self.rig, warm.answer_bytes, names))
            for side in sides:
                await stack.enter_async_context(started(side))
                await self.run(side, load, names, self.warm_up // (_PLAIN_SHARE if isinstance(side, Plain) else 1))
            sides.insert(1, workers)
            runs = await self._by_turns(scenario, sides, names)
        return Comparison(scenario.name, scenario.title, runs)

    async def _by_turns(self, scenario: Scenario, sides: list[Side], names: list[str]) -> dict[str, list[Run]]:
        """Every side's runs. Only the worker uses its nodes up: the others do no accounting."""
        load = scenario.load
        runs: dict[str, list[Run]] = {side.name: [] for side in sides}
        for turn in range(self.options.repeats):
            for side in sides:
                self.say(f"{scenario.title}: {side.name}, {turn + 1} of {self.options.repeats}")
                own = await self.nodes(load, side) if load.fresh and isinstance(side, Workers) else names
                count = self.options.commands // (_PLAIN_SHARE if isinstance(side, Plain) else 1)
                runs[side.name].append(await self.run(side, load, own, count))
        return runs

    async def run(self, side: Side, load: Load, names: list[str], count: int) -> Run:
        """One backlog of new commands."""
        return await work_off(self.rig, self.database, side, load.commands(names, count))

    async def nodes(self, load: Load, workers: Workers) -> list[str]:
        """Register the nodes of a load, and fill them."""
        names = load.names(f"{self.prefix}-{len(self._nodes)}", self.rig.shards)
        self._nodes += names
        await carry_out(self.rig, workers, load.puts(names))
        await carry_out(self.rig, workers, load.filling(names))
        return names

    async def clean_up(self) -> None:
        """Remove every node that was registered, with all it holds.

        Few at a time: what a batch releases is released in one transaction.
        """
        removals = [command("node.remove", name, force=True) for name in self._nodes]
        async with started(Workers(self.rig)) as workers:
            for at in range(0, len(removals), _REMOVED_AT_ONCE):
                await carry_out(self.rig, workers, removals[at : at + _REMOVED_AT_ONCE])
        self._nodes.clear()
