"""A worker's archive of dead letters: kept in the database, and whom nobody told of one is told then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.ledger.dead_letters import store
from worker.ledger.errors import repeated
from worker.ledger.postgres import available

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import asyncpg

    from worker.engine.ports import DeadLetter
    from worker.telemetry.metrics import Metrics


@dataclass(slots=True)
class Archive:
    """Made before the broker, which brings it letters; ``answer`` is the engine's, which is made after that."""

    pool: asyncpg.Pool
    metrics: Metrics
    answer: Callable[[DeadLetter], None] | None = None

    async def store(self, letters: Sequence[DeadLetter]) -> None:
        """Keep letters for good, all or none, and then tell the senders of those that no worker has had.

        Raises:
            LedgerUnavailable: they can be stored later.
        """
        async with available():
            await repeated(lambda: store(self.pool, letters))
        self.metrics.archived.inc(len(letters))
        for letter in letters:
            if letter.untold and self.answer is not None:
                self.answer(letter)
