"""Messages that the broker refused: each waits for another attempt, for a bounded time, among a bounded number."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from schemas.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.engine.ports import Outgoing

ATTEMPTS: Final = 7
"""How often a message is sent in all; with these pauses, a queue has a minute to get room."""

BACKOFF: Final = Backoff(0.75, 48.0, jitter=0.5)

MOST: Final = 1024
"""How many refused messages wait; of at most 1 MiB each, and as a rule of 1 KiB."""

MOST_OF_TARGET: Final = 64
"""How many of those go to one place, so that one full queue leaves room for the trouble of others."""

LONGEST_SECONDS: Final = 120.0
"""Longer than all pauses of one message together."""

_Origin = TypeVar("_Origin")


@dataclass(slots=True, eq=False)
class Refused(Generic[_Origin]):
    """A message that waits for another attempt, and what it is part of. ``attempts`` is how often it was sent."""

    message: Outgoing
    origin: _Origin
    attempts: int = 1

    @property
    def target(self) -> str:
        """The reply queue it goes to, or the exchange, behind which it is not known whose queue refuses."""
        return self.message.exchange or self.message.routing_key


class Retries(Generic[_Origin]):
    """Refused messages by the time of their next attempt.

    Args:
        backoff: the pauses between the attempts.
    """

    def __init__(self, backoff: Backoff = BACKOFF) -> None:
        self._backoff = backoff
        self._queue: list[tuple[float, int, Refused[_Origin]]] = []
        self._waiting: dict[Refused[_Origin], None] = {}
        self._of_target: Counter[str] = Counter()
        self._order = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Refused[_Origin]]:
        return iter(self._waiting)

    def add(self, refused: Refused[_Origin], now: float) -> bool:
        """Take a message up; false if too many wait already, in all or for its target."""
        if len(self._waiting) >= MOST or self._of_target[refused.target] >= MOST_OF_TARGET:
            return False
        self._waiting[refused] = None
        self._of_target[refused.target] += 1
        self.put_off(refused, now)
        return True

    def again(self, refused: Refused[_Origin], now: float) -> bool:
        """Note that it was refused once more; false if that was its last attempt."""
        refused.attempts += 1
        if refused.attempts >= ATTEMPTS:
            return False
        self.put_off(refused, now)
        return True

    def put_off(self, refused: Refused[_Origin], now: float) -> None:
        """Have it tried after a pause; what the broker did not answer is no attempt."""
        heapq.heappush(self._queue, (now + self._backoff.seconds(refused.attempts), next(self._order), refused))

    def drop(self, refused: Refused[_Origin]) -> None:
        """Its attempts are over."""
        del self._waiting[refused]
        self._of_target[refused.target] -= 1
        if not self._of_target[refused.target]:
            del self._of_target[refused.target]

    def seconds(self, now: float) -> float | None:
        """How long until an attempt is due; nothing if none is."""
        return max(0.0, self._queue[0][0] - now) if self._queue else None

    def due(self, now: float) -> list[Refused[_Origin]]:
        """What is to be tried now. Each goes on waiting until it is dropped, put off or tried again."""
        found = []
        while self._queue and self._queue[0][0] <= now:
            found.append(heapq.heappop(self._queue)[2])
        return found
