"""When each node is looked at: spread evenly over its interval, at once where something happened, never queued."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_JITTER: Final = 0.05
"""The share of an interval by which each look is put off at random, so that no pattern builds up over a fleet."""

_LATE: Final = 0.25
"""The share of its interval after which a look is left out: what it would find, the next one finds as well."""

_LATE_SECONDS: Final = 2.0
"""A look is not late before: short intervals are for tests and small fleets."""

DEBOUNCE_SECONDS: Final = 0.3
"""A guest that starts or goes makes several events within this time, which are answered by one look."""

_REPEAT_SECONDS: Final = 1.0
"""A node where something happens all the time is looked at once in this time."""


@dataclass(slots=True)
class _Turn:
    """One node's turn: its interval, when it comes next, and when something that happened asked for one last."""

    interval: float
    next_at: float
    hurried_at: float = float("-inf")


@dataclass(slots=True)
class Schedule:
    """The turns of a worker's nodes, in seconds of the caller's clock.

    A node that is new has its first turn soon: all that are new together are
    spread as the ``rate`` (turns a second) allows.
    """

    rate: float
    chance: random.Random = field(default_factory=random.Random)
    skipped: int = 0
    _turns: dict[str, _Turn] = field(default_factory=dict)
    _order: list[tuple[float, str]] = field(default_factory=list)
    _hurried: dict[str, float] = field(default_factory=dict)

    def __contains__(self, node: str) -> bool:
        return node in self._turns

    def follow(self, intervals: Mapping[str, float], now: float) -> set[str]:
        """Have exactly these nodes; an interval of 0 is none. Answers which are no longer there."""
        wanted = {node: interval for node, interval in intervals.items() if interval > 0}
        gone = self._turns.keys() - wanted.keys()
        for node in gone:
            del self._turns[node]
            self._hurried.pop(node, None)
        fresh = [node for node in wanted if node not in self._turns]
        for node in fresh:
            soon = min(wanted[node], len(fresh) / self.rate)
            self._put(node, _Turn(wanted[node], now), now + self.chance.uniform(0.0, soon))
        for node, interval in wanted.items():
            turn = self._turns[node]
            if turn.interval != interval:
                turn.interval = interval
                self._put(node, turn, now + self.chance.uniform(0.0, interval))
        return gone

    def hurry(self, node: str, now: float, after: float = DEBOUNCE_SECONDS) -> None:
        """Something happened on a node: its turn comes as soon as what belongs together has happened."""
        turn = self._turns.get(node)
        if turn is not None:
            soon = max(now + after, turn.hurried_at + _REPEAT_SECONDS)
            self._hurried[node] = min(soon, self._hurried.get(node, soon))

    def due(self, now: float, most: int, busy: Iterable[str] = ()) -> list[str]:
        """Nodes whose turn it is, those where something happened first; ``busy`` ones wait for their end."""
        taken: list[str] = []
        for node in [node for node, at in self._hurried.items() if at <= now and node not in busy][:most]:
            del self._hurried[node]
            self._turns[node].hurried_at = now
            taken.append(node)
        while self._order and self._order[0][0] <= now and len(taken) < most:
            at, node = heappop(self._order)
            turn = self._turns.get(node)
            if turn is None or turn.next_at != at:
                continue  # it is gone, or has another turn since
            self._put(node, turn, self._after(turn, now))
            if now - at > max(_LATE_SECONDS, _LATE * turn.interval):
                self.skipped += 1
            elif node not in busy and node not in taken:
                taken.append(node)
        return taken

    def _after(self, turn: _Turn, now: float) -> float:
        """The next turn: one interval after this one was due, or where that has passed, counted on from there."""
        missed = max(0.0, now - turn.next_at) // turn.interval
        return turn.next_at + turn.interval * (missed + 1 + self.chance.uniform(-_JITTER, _JITTER))

    def _put(self, node: str, turn: _Turn, at: float) -> None:
        turn.next_at = at
        self._turns[node] = turn
        heappush(self._order, (at, node))
