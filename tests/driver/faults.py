"""What befalls the pool while it works, at moments that a seed decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from deploy.lib.stack import Stack
from tests.driver.hosts import Hosts
from tests.driver.pool import Worker
from tests.driver.proxy import Proxy

_SILENCE_SECONDS: Final = 12.0
"""At most: longer than a call's deadline, so that workers meet what hangs and what is back."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each fault happens within ``seconds``."""

    seconds: float = 60.0
    kills: int = 0
    pauses: int = 0
    broker_restarts: int = 0
    database_restarts: int = 0
    cuts: int = 0
    silences: int = 0

    def schedule(self, random: Random) -> list[tuple[float, str]]:
        """When each happens, spread evenly and then shaken."""
        faults: list[tuple[float, str]] = []
        for name in ("kills", "pauses", "broker_restarts", "database_restarts", "cuts", "silences"):
            count = getattr(self, name)
            faults += [((number + random.random()) * self.seconds / count, name) for number in range(count)]
        return sorted(faults)


@dataclass(slots=True)
class Faults:
    """Carries out a plan. Servers are restarted one at a time, and the kills go on meanwhile."""

    plan: Plan
    random: Random
    stack: Stack
    workers: Sequence[Worker]
    proxies: Sequence[Proxy]
    hosts: Hosts
    pause_seconds: float
    done: dict[str, int] = field(default_factory=dict)
    _servers: asyncio.Lock = field(default_factory=asyncio.Lock)
    _busy: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Let everything happen; returns when all is over and every worker is up again."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for at, name in self.plan.schedule(self.random):
                await asyncio.sleep(max(0.0, began + at - time.monotonic()))
                group.create_task(getattr(self, "_" + name)())

    async def _kills(self) -> None:
        worker = self._free()
        if worker is None:
            return
        await worker.kill()
        await worker.start()
        self._over(worker, "kills")

    async def _pauses(self) -> None:
        worker = self._free()
        if worker is None:
            return
        await worker.pause(self.pause_seconds)
        self._over(worker, "pauses")

    async def _broker_restarts(self) -> None:
        broker = self.stack.rabbitmq
        async with self._servers:
            immediate = self.random.random() < 0.5
            await asyncio.to_thread(broker.stop, immediate=immediate)
            await asyncio.to_thread(broker.start)
        self._over(None, "broker_restarts")

    async def _database_restarts(self) -> None:
        database = self.stack.postgres
        async with self._servers:
            immediate = self.random.random() < 0.5
            await asyncio.to_thread(database.stop, immediate=immediate)
            await asyncio.sleep(self.random.uniform(0, 2))
            await asyncio.to_thread(database.start)
        self._over(None, "database_restarts")

    async def _cuts(self) -> None:
        self.random.choice(self.proxies).cut(self.random)
        self._over(None, "cuts")

    async def _silences(self) -> None:
        """Some hypervisors hang, others refuse, and all come back one after the other."""
        gone = self.hosts.some(self.random)
        for line in gone:
            line.go(hanging=self.random.random() < 0.5)
        for line in gone:
            await asyncio.sleep(self.random.uniform(0, _SILENCE_SECONDS / len(gone)))
            line.come_back()
        self._over(None, "silences")

    def _free(self) -> Worker | None:
        """A worker that nothing is being done to."""
        free = [worker for worker in self.workers if worker.name not in self._busy]
        if not free:
            return None
        worker = self.random.choice(free)
        self._busy.add(worker.name)
        return worker

    def _over(self, worker: Worker | None, name: str) -> None:
        if worker is not None:
            self._busy.discard(worker.name)
        self.done[name] = self.done.get(name, 0) + 1
