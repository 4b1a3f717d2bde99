"""When to try a hypervisor again that has failed."""

from __future__ import annotations

from typing import Final

from schemas.backoff import Backoff

# A second is what a daemon takes to start again; after half a minute people look whether their node is back.
BACKOFF: Final = Backoff(1.0, 30.0, jitter=0.5)


class Breaker:
    """Open after a failure, for a while that grows with each further one; see :class:`Backoff`.

    Times are the caller's, in seconds.
    """

    __slots__ = ("_until", "failures", "reason")

    def __init__(self) -> None:
        self.failures = 0
        self.reason = ""
        self._until = 0.0

    def is_open(self, now: float) -> bool:
        """Whether calls are to fail at once."""
        return self.failures > 0 and now < self._until

    def failed(self, now: float, reason: str) -> None:
        """Note a failure."""
        self.failures += 1
        self.reason = reason
        self._until = now + BACKOFF.seconds(self.failures)

    def retry(self) -> None:
        """Let the next call through; should it fail, the pauses go on from where they were."""
        self._until = 0.0

    def succeeded(self) -> None:
        """Note a success: all is forgotten."""
        self.failures = 0
        self.reason = ""
