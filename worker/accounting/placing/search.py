"""Searching host cells for the cells of a guest.

The answer is the first in the order of all arrangements: guest cell 0 on the
first host cell that leaves the rest a way, then guest cell 1, and so on. It is
found without enumerating arrangements: a host cell is tried only if the other
guest cells can still be matched with the host cells left, guest cells that are
alike are tried in one order only, of host cells that are alike only the first
is tried, and what failed once is not tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_STEPS: Final = 10_000
"""A bound on the work for one request: reached only by requests made to be hard, which are then refused."""


class Surroundings(Protocol):
    """What a guest needs near the cells it lies on. More cells never offer less."""

    def alike(self, position: int) -> object:
        """A key that is equal for host cells that offer the same."""

    def possible(self, taken: int, available: int, slots: int) -> bool:
        """Whether ``slots`` more cells out of ``available`` could offer what ``taken`` lack; a yes may be wrong."""

    def satisfied(self, taken: int) -> bool:
        """Whether the cells taken offer everything."""


def arrange(rows: Sequence[int], surroundings: Surroundings | None = None) -> list[int] | None:
    """For each guest cell the position of its host cell, no host cell twice; None if there is no way.

    ``rows[g]`` is the mask of the positions where guest cell ``g`` fits.
    """
    if not matchable(rows):
        return None
    chosen: list[int] = []
    return chosen if _Search(rows, surroundings).extend(chosen, 0) else None


def matchable(rows: Sequence[int]) -> bool:
    """Whether each guest cell can have a host cell of its own (a perfect bipartite matching)."""
    return unmatched(rows) is None


def unmatched(rows: Sequence[int]) -> list[int] | None:
    """The guest cells left over by a largest matching; None if there are none."""
    everything = 0
    for row in rows:
        everything |= row
    if all(row == everything for row in rows):
        spare = everything.bit_count()
        return list(range(spare, len(rows))) if spare < len(rows) else None
    holder: dict[int, int] = {}
    left = [guest for guest in range(len(rows)) if not _augment(rows, holder, guest)]
    return left or None


def _augment(rows: Sequence[int], holder: dict[int, int], guest: int) -> bool:
    """Find ``guest`` a position, moving others where needed: one shortest alternating path."""
    reached: dict[int, int] = {}
    queue = [guest]
    seen = 0
    for current in queue:
        fresh = rows[current] & ~seen
        seen |= fresh
        while fresh:
            position = (fresh & -fresh).bit_length() - 1
            fresh &= fresh - 1
            reached[position] = current
            if position not in holder:
                _shift(holder, reached, position, guest)
                return True
            queue.append(holder[position])
    return False


def _shift(holder: dict[int, int], reached: dict[int, int], position: int, guest: int) -> None:
    places = {owner: place for place, owner in holder.items()}
    while True:
        mover = reached[position]
        holder[position] = mover
        if mover == guest:
            return
        position = places[mover]


class _Search:
    def __init__(self, rows: Sequence[int], surroundings: Surroundings | None) -> None:
        self.rows = rows
        self.surroundings = surroundings
        self.steps = 0
        self.failed: set[tuple[int, int, int]] = set()

    def extend(self, chosen: list[int], taken: int) -> bool:
        """Complete ``chosen``; on failure leave it as it was."""
        guest = len(chosen)
        if guest == len(self.rows):
            return self.surroundings is None or self.surroundings.satisfied(taken)
        floor = chosen[-1] + 1 if guest and self.rows[guest] == self.rows[guest - 1] else 0
        state = (guest, taken, floor)
        if state in self.failed:
            return False
        candidates = (self.rows[guest] & ~taken) >> floor << floor
        tried: set[object] = set()
        while candidates and self.steps < MAX_STEPS:
            low = candidates & -candidates
            candidates ^= low
            if not self._new(low.bit_length() - 1, tried):
                continue
            self.steps += 1
            if not self._promising(guest, low, taken):
                continue
            chosen.append(low.bit_length() - 1)
            if self.extend(chosen, taken | low):
                return True
            chosen.pop()
        self.failed.add(state)
        return False

    def _new(self, position: int, tried: set[object]) -> bool:
        """Whether no host cell like this one was tried at this point."""
        if self.surroundings is None:
            return True
        fits = tuple(row >> position & 1 for row in dict.fromkeys(self.rows))
        key = (fits, self.surroundings.alike(position))
        if key in tried:
            return False
        tried.add(key)
        return True

    def _promising(self, guest: int, low: int, taken: int) -> bool:
        """Whether the rest could still be arranged once ``guest`` takes the host cell ``low``."""
        taken |= low
        rest = [row & ~taken for row in self.rows[guest + 1 :]]
        if not matchable(rest):
            return False
        if self.surroundings is None:
            return True
        available = 0
        for row in rest:
            available |= row
        return self.surroundings.possible(taken, available, len(rest))
