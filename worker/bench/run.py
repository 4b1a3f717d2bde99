"""From the command line's wishes to the results."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from worker.bench.database import connected
from worker.bench.results import Results
from worker.bench.rig import rigged
from worker.bench.rounds import Bench, Options
from worker.errors import OperationError, UnreachableError
from worker.servers import broker_options
from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.bench.database import Database
    from worker.bench.parts import Part
    from worker.bench.rig import Rig

_QUIET: Final = (
    "this installation is in use ({}): let its queues run empty and stop its workers, "
    "or measure a scratch one, such as `deploy/stack up` makes"
)


async def measure(parts: Sequence[Part], options: Options, say: Callable[[str], None]) -> Results:
    """Measure, and leave nothing behind but the history of nodes that are gone.

    Raises:
        OperationError: the installation is in use, or an outcome is not what it must be.
        UnreachableError: a server is away.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected())
        name = f"nodeledger-bench-{uuid4().hex[:8]}"
        settings = load_settings()
        shards = await database.shards()
        rigging = rigged(broker_options(settings), name, shards, declare=settings.declare_topology)
        rig = await stack.enter_async_context(rigging)
        await _idle(rig, database)
        results = Results(await _environment(rig, database, options))
        bench = Bench(rig, database, options, say)
        try:
            for part in parts:
                await _measure(part, bench, results)
            results.differences = await database.differences()
        finally:
            await _clean_up(bench, say)
    return results


async def _measure(part: Part, bench: Bench, results: Results) -> None:
    """Measure one part; where it fails, the others are still worth having."""
    try:
        await part.measure(bench, results)
    except (OperationError, UnreachableError) as error:
        results.failures[part.name] = str(error)
        bench.say(f"{part.name} failed: {error}")


async def _idle(rig: Rig, database: Database) -> None:
    busy = [f"the worker {name} is alive" for name in await database.alive()] + await rig.others()
    if busy:
        raise OperationError(_QUIET.format("; ".join(busy[:3])))


async def _clean_up(bench: Bench, say: Callable[[str], None]) -> None:
    """Remove the nodes; what was measured is worth keeping even where that fails."""
    say("cleaning up")
    try:
        await bench.clean_up()
    except (OperationError, UnreachableError) as error:
        say(f"nodes whose names begin with {bench.prefix} are left: {error}")


async def _environment(rig: Rig, database: Database, options: Options) -> dict[str, Any]:
    return {
        "rabbitmq": rig.server_version,
        "database": await database.server(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "shards": rig.shards,
        "prefetch": load_settings().prefetch,
        "commands": options.commands,
        "repeats": options.repeats,
    }
