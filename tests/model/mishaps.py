"""What befalls a worker between the load of a batch and its commit: it dies, or another one is faster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from tests.model.path import Crash
from worker.engine.ports import ReadKeys, ReadSet, Transaction, WriteSet
from worker.ledger.postgres import PostgresLedger


class Dying:
    """A ledger whose worker dies when a batch is written and not yet committed."""

    def __init__(self, ledger: PostgresLedger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    @asynccontextmanager
    async def transaction(self, *, locking: bool) -> AsyncIterator[Transaction]:
        async with self._ledger.transaction(locking=locking) as real, real.connection.transaction():
            yield real
            raise Crash


class Unsettled(BaseException):
    """What is behind others in its lane cannot be decided yet."""


class Slow:
    """A ledger that lets another worker be faster: between the load of a batch and its write, ``meanwhile`` happens."""

    def __init__(self, ledger: PostgresLedger, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._ledger = ledger
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    @asynccontextmanager
    async def transaction(self, *, locking: bool) -> AsyncIterator[Transaction]:
        if locking:
            await self._hurry()
        async with self._ledger.transaction(locking=locking) as real:
            yield cast(Transaction, _Delayed(real, self._hurry))

    async def _hurry(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()


@dataclass
class _Delayed:
    real: Transaction
    hurry: Callable[[], Awaitable[None]]

    async def load(self, wanted: ReadKeys) -> ReadSet:
        loaded = await self.real.load(wanted)
        await self.hurry()
        return loaded

    async def write(self, loaded: ReadSet, changes: WriteSet) -> None:
        await self.real.write(loaded, changes)
