"""Hosts that do not answer: since when, and whether they are back, which is seen by knocking and without a call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from worker.engine.ports import Hypervisors
    from worker.engine.schedule import Schedule

_BACKOFF: Final = Backoff(3.0, 30.0, jitter=0.3)
"""A port that does not listen is knocked at every three seconds; one that does, and hangs, ever more seldom."""

_AT_ONCE: Final = 64


@dataclass(slots=True)
class _Silent:
    """A host that does not answer, and when it is seen next whether it is back."""

    since: float
    next_at: float
    in_vain: int = 0


class Silence:
    """The hosts that are silent, in seconds of the caller's clock."""

    def __init__(self, hypervisors: Hypervisors, clock: Callable[[], float]) -> None:
        self._hypervisors = hypervisors
        self._clock = clock
        self._silent: dict[str, _Silent] = {}
        self._knocking: set[asyncio.Task[None]] = set()

    def __contains__(self, node: str) -> bool:
        return node in self._silent

    def begins(self, node: str) -> None:
        """A host does not answer any more."""
        now = self._clock()
        self._silent[node] = _Silent(now, now + _BACKOFF.seconds(0))

    def ends(self, node: str) -> float | None:
        """A host answers; for how many seconds it did not, or ``None`` if it did."""
        silent = self._silent.pop(node, None)
        return None if silent is None else self._clock() - silent.since

    def keep(self, nodes: Collection[str]) -> None:
        """Forget all others: they are no more."""
        self._silent = {node: silent for node, silent in self._silent.items() if node in nodes}

    def knock(self, schedule: Schedule, now: float) -> None:
        """See whether the hosts of a schedule are back; the turn of one that is comes at once."""
        for node, silent in self._silent.items():
            if len(self._knocking) >= _AT_ONCE:
                return
            if silent.next_at <= now and node in schedule:
                silent.next_at = now + _BACKOFF.longest
                task = asyncio.create_task(self._knock(node, silent, schedule), name=f"knock at {node}")
                self._knocking.add(task)
                task.add_done_callback(self._knocking.discard)

    def close(self) -> None:
        """Knock no more."""
        for task in self._knocking:
            task.cancel()

    async def _knock(self, node: str, silent: _Silent, schedule: Schedule) -> None:
        answered = await self._hypervisors.knock(node)
        silent.in_vain = silent.in_vain + 1 if answered else 0
        silent.next_at = self._clock() + _BACKOFF.seconds(silent.in_vain)
        if answered:
            schedule.hurry(node, self._clock())
