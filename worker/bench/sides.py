"""The sides of a comparison: the bare loop, the plain worker, and workers as they are run in earnest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from worker.bench import loop, plain
from worker.bench.subjects import Subject
from worker.servers import owning

if TYPE_CHECKING:
    from worker.bench.rig import Rig, Route

WORKER: Final = ("-c", "from worker.main import run; raise SystemExit(run())")


class Side(ABC):
    """One side: the processes that do the work, and where its commands are sent."""

    name: str
    tells = False
    """Whether its answers say if a command was applied."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.subjects: list[Subject] = []

    @abstractmethod
    async def start(self) -> None:
        """Start the processes and wait until they are ready."""

    @abstractmethod
    def route(self) -> Route:
        """Where commands go."""

    async def stop(self) -> None:
        """End the processes."""
        while self.subjects:
            await self.subjects.pop().stop()

    def hold(self) -> None:
        """Make all processes wait."""
        for subject in self.subjects:
            subject.hold()

    def release(self) -> None:
        """Let all go on."""
        for subject in self.subjects:
            subject.release()

    def check(self) -> None:
        """Make sure that all still run."""
        for subject in self.subjects:
            subject.check()

    def cpu_seconds(self) -> float:
        """Processor time of all, in seconds."""
        return sum(subject.cpu_seconds() for subject in self.subjects)

    def resident_mib(self) -> float:
        """Memory of all, in MiB."""
        return sum(subject.resident_mib() for subject in self.subjects)


class Workers(Side):
    """One or more workers, as ``nodeledger worker`` runs them."""

    tells = True

    def __init__(self, rig: Rig, count: int = 1, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(rig)
        self.name = "worker" if count == 1 else f"{count} workers"
        self._count = count
        self._settings = settings or {}

    async def start(self) -> None:
        """Start the workers."""
        for _ in range(self._count):
            self.subjects.append(await Subject.start(WORKER, self._settings))
        for subject in self.subjects:
            await subject.ready()

    def route(self) -> Route:
        """To the shards, as producers send them."""
        return self.rig.to_shards


class Loop(Side):
    """The bare loop, on a queue of its own."""

    name = "loop"

    def __init__(self, rig: Rig, answer_bytes: int) -> None:
        super().__init__(rig)
        self._answer_bytes = answer_bytes

    async def start(self) -> None:
        """Declare its queue and start it."""
        queue = await self.rig.queue(self.name)
        settings = {
            loop.QUEUE: queue.name,
            loop.EXCHANGE: self.rig.exchange,
            loop.ANSWER_BYTES: str(self._answer_bytes),
        }
        self.subjects.append(await Subject.start(("-m", "worker.bench.loop"), settings))
        await self.subjects[0].ready()

    def route(self) -> Route:
        """To its queue."""
        return self.rig.to_queue(self.name)


class Plain(Side):
    """The plain worker, on a queue and in a schema of its own; needs the address of the schemas' owner."""

    name = "plain worker"

    def __init__(self, rig: Rig, answer_bytes: int, nodes: Sequence[str]) -> None:
        super().__init__(rig)
        self._answer_bytes = answer_bytes
        self._nodes = nodes
        self._schema = f"nodeledger_bench_{uuid4().hex[:8]}"

    async def start(self) -> None:
        """Make its tables and its queue, and start it."""
        queue = await self.rig.queue("plain")
        async with owning() as connection:
            await connection.execute(plain.TABLES.format(schema=self._schema))
            await connection.execute(
                f"INSERT INTO {self._schema}.node SELECT unnest($1::text[]), 0, 0",
                self._nodes,
            )
        settings = {
            loop.QUEUE: queue.name,
            loop.EXCHANGE: self.rig.exchange,
            loop.ANSWER_BYTES: str(self._answer_bytes),
            plain.SCHEMA: self._schema,
        }
        self.subjects.append(await Subject.start(("-m", "worker.bench.plain"), settings))
        await self.subjects[0].ready()

    async def stop(self) -> None:
        """End it, and drop its tables."""
        await super().stop()
        async with owning() as connection:
            await connection.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")

    def route(self) -> Route:
        """To its queue."""
        return self.rig.to_queue("plain")
