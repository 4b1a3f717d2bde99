"""Searching host cells for the cells of a guest.

The answer is the first in the order of all arrangements: guest cell 0 on the
first host cell that leaves the rest a way, then guest cell 1, and so on. It is
found without enumerating arrangements: a host cell is tried only if the other
guest cells can still be matched with the host cells left, guest cells that are
alike are tried in one order only, of host cells that are alike only the first
is tried, and what failed once is not tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounting.work import Work


class Surroundings(Protocol):
    """What a guest needs near the cells it lies on. More cells never offer less."""

    def alike(self, position: int) -> object:
        """A key that is equal for host cells that offer the same."""

    def possible(self, taken: int, available: int, slots: int) -> bool:
        """Whether ``slots`` more cells out of ``available`` could offer what ``taken`` lack; a yes may be wrong."""

    def satisfied(self, taken: int) -> bool:
        """Whether the cells taken offer everything."""


def arrange(rows: Sequence[int], surroundings: Surroundings | None, work: Work) -> list[int] | None:
    """For each guest cell the position of its host cell, no host cell twice; None if there is no way.

    ``rows[g]`` is the mask of the positions where guest cell ``g`` fits.

    Raises:
        TooComplexError: finding out takes more work than is left.
    """
    if not matchable(rows, work):
        return None
    chosen: list[int] = []
    return chosen if _Search(rows, surroundings, work).extend(chosen, 0) else None


def matchable(rows: Sequence[int], work: Work) -> bool:
    """Whether each guest cell can have a host cell of its own (a perfect bipartite matching)."""
    return unmatched(rows, work) is None


def unmatched(rows: Sequence[int], work: Work) -> list[int] | None:
    """The guest cells left over by a largest matching; None if there are none."""
    work.spend(len(rows) // 8)
    everything = 0
    for row in rows:
        everything |= row
    if all(row == everything for row in rows):
        spare = everything.bit_count()
        return list(range(spare, len(rows))) if spare < len(rows) else None
    holder: dict[int, int] = {}
    left = [guest for guest in range(len(rows)) if not _augment(rows, holder, guest, work)]
    return left or None


def _augment(rows: Sequence[int], holder: dict[int, int], guest: int, work: Work) -> bool:
    """Find ``guest`` a position, moving others where needed: one shortest alternating path."""
    reached: dict[int, int] = {}
    queue = [guest]
    seen = 0
    for current in queue:
        fresh = rows[current] & ~seen
        seen |= fresh
        work.spend(1)
        while fresh:
            position = (fresh & -fresh).bit_length() - 1
            fresh &= fresh - 1
            reached[position] = current
            if position not in holder:
                work.spend(len(holder) // 8)
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
    def __init__(self, rows: Sequence[int], surroundings: Surroundings | None, work: Work) -> None:
        self.rows = rows
        self.kinds = list(dict.fromkeys(rows))
        self.surroundings = surroundings
        self.work = work
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
        first: int | None = None
        while candidates:
            low = candidates & -candidates
            candidates ^= low
            self.work.spend(1 + len(self.kinds) // 8)
            if first is None:
                first = low.bit_length() - 1  # what it is like matters only once another one is looked at
            elif not self._new(low.bit_length() - 1, first, tried):
                continue
            if guest + 1 < len(self.rows) and not self._promising(guest, low, taken):
                continue
            chosen.append(low.bit_length() - 1)
            if self.extend(chosen, taken | low):
                return True
            chosen.pop()
        self.failed.add(state)
        return False

    def _new(self, position: int, first: int, tried: set[object]) -> bool:
        """Whether no host cell like this one was tried at this point, ``first`` before all others."""
        if self.surroundings is None:
            return True
        if not tried:
            tried.add(self._key(first, self.surroundings))
        key = self._key(position, self.surroundings)
        if key in tried:
            return False
        tried.add(key)
        return True

    def _key(self, position: int, surroundings: Surroundings) -> object:
        """What is equal for host cells that are alike to this guest."""
        return tuple(row >> position & 1 for row in self.kinds), surroundings.alike(position)

    def _promising(self, guest: int, low: int, taken: int) -> bool:
        """Whether the rest could still be arranged once ``guest`` takes the host cell ``low``."""
        taken |= low
        rest = [row & ~taken for row in self.rows[guest + 1 :]]
        self.work.spend(len(rest) // 4)
        if not matchable(rest, self.work):
            return False
        if self.surroundings is None:
            return True
        available = 0
        for row in rest:
            available |= row
        return self.surroundings.possible(taken, available, len(rest))
