"""How much work one decision may be.

A decision depends on the state, the command and the time alone, so its bound is
counted in steps and not in seconds: the same command is too complex on every
machine, or on none. A step is some microseconds at most; whatever loops
over what a message or a host holds says how many it takes.
"""

from __future__ import annotations

from typing import Final

from schemas.errors import NodeledgerError

SEARCH_STEPS: Final = 3_000
"""What one command may take to be decided, all its members and candidates together: some 5 ms at most."""

REASON_STEPS: Final = 1_500
"""What one command may take further to tell why it is refused: some 3 ms at most."""


MOST_REASONS: Final = 256
"""Reasons of one sort that are listed for one node: one for each custom resource that a command can name."""


class TooComplexError(NodeledgerError):
    """Going on would take more steps than are left."""


class Work:
    """The steps a decision has left; of each sort of reasons against a node ``most`` are listed, the rest counted."""

    __slots__ = ("_reasons", "left", "most")

    def __init__(self, steps: int = SEARCH_STEPS, most: int = MOST_REASONS) -> None:
        self.left = steps
        self.most = most
        self._reasons: Work | None = None

    def spend(self, steps: int) -> None:
        """Say that so many steps are taken.

        Raises:
            TooComplexError: there are not so many left; none will be taken any more.
        """
        self.left -= steps
        if self.left < 0:
            raise TooComplexError

    @property
    def exhausted(self) -> bool:
        """Whether the bound was met."""
        return self.left < 0

    @property
    def reasons(self) -> Work:
        """The steps kept back for telling why the command is refused."""
        if self._reasons is None:
            self._reasons = Work(REASON_STEPS)
        return self._reasons
