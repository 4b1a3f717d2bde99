"""Queues of outcomes in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field

from schemas import Outcome, Status


@dataclass(slots=True, eq=False)
class MemoryRead:
    """An outcome as it was read; it comes again to the next reader until it is acknowledged."""

    outcome: Outcome
    _kept: list[MemoryRead]

    async def acknowledge(self) -> None:
        """It is done with."""
        if self in self._kept:
            self._kept.remove(self)


@dataclass(slots=True)
class OutcomeQueue:
    """A durable queue, bound to some outcomes, and what of them is not acknowledged."""

    kinds: Collection[str]
    statuses: Collection[Status]
    nodes: Collection[str]
    kept: list[MemoryRead] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, outcome: Outcome) -> None:
        """Keep an outcome if it is wanted."""
        wanted = ((self.kinds, outcome.kind), (self.statuses, outcome.status), (self.nodes, outcome.node))
        if all(not chosen or value in chosen for chosen, value in wanted):
            self.kept.append(MemoryRead(outcome, self.kept))
            self.came.set()

    async def read(self) -> AsyncGenerator[MemoryRead, None]:
        """What is kept, and then what comes."""
        given: set[MemoryRead] = set()
        while True:
            self.came.clear()
            for one in [kept for kept in self.kept if kept not in given]:
                given.add(one)
                yield one
            given &= set(self.kept)
            if all(kept in given for kept in self.kept):
                await self.came.wait()
