"""When to try a hypervisor again that has failed."""

from __future__ import annotations

from random import uniform
from typing import Final

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 30.0


class Breaker:
    """Open after a failure, for a while that doubles from 1 s to 30 s with each further one.

    The while is drawn between its half and its whole, so that nodes that
    failed together are not all tried again together. Times are the caller's,
    in seconds.
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
        longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.failures, 16))
        self.failures += 1
        self.reason = reason
        self._until = now + max(FIRST_SECONDS, uniform(longest / 2, longest))  # noqa: S311 - no secret

    def succeeded(self) -> None:
        """Note a success: all is forgotten."""
        self.failures = 0
        self.reason = ""
