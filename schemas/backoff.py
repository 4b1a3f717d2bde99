"""How long to wait before the next attempt, for everything that is attempted again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

_MOST_DOUBLINGS: Final = 64
"""Beyond these every ceiling is the longest pause, and a larger power might not be a float any more."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A retry policy: pauses below a ceiling that grows with each failure, drawn at random.

    Drawn anew each time, since those that failed together are not to come back
    together ("full jitter" in Marc Brooker's "Exponential Backoff And Jitter").

    Args:
        shortest: seconds that a pause lasts at least.
        longest: seconds that a pause lasts at most.
        factor: how much higher the ceiling is after each failure.
        jitter: the share of the ceiling that is drawn; 1 draws from the shortest pause on, 0 draws nothing.
        chance: where the draws come from; a seeded one repeats its pauses.
    """

    shortest: float
    longest: float
    factor: float = 2.0
    jitter: float = 1.0
    chance: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def seconds(self, failures: int) -> float:
        """The pause that follows on so many failures in a row, of which there is at least one."""
        ceiling = min(self.longest, self.shortest * self.factor ** min(failures, _MOST_DOUBLINGS))
        return self.chance.uniform(max(self.shortest, (1.0 - self.jitter) * ceiling), ceiling)
