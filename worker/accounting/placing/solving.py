"""Choosing one way to use each block of devices, so that what they add up to serves every request.

The blocks are gone through once, keeping every total that can be reached and
that none exceeds (dynamic programming over Pareto-maximal sums): equal blocks
are interchangeable, no total is looked at twice, and what could not come to
enough any more is left out. The answer is exact.
"""

from __future__ import annotations

from itertools import accumulate
from operator import add, lshift
from typing import TYPE_CHECKING, NamedTuple

from worker.accounting.host.devices import Stock
from worker.accounting.host.modes import bits
from worker.accounting.placing.flow import Matching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from worker.accounting.work import Work

Totals = tuple[int, ...]
Picks = tuple[int, ...]
"""For each option of a group of blocks, how many of the blocks use it."""


class _Path(NamedTuple):
    """How a total was reached."""

    before: _Path | None
    picks: Picks


class Problem(NamedTuple):
    """Requests that compete: units by who may take them, and what groups of blocks offer of those, one way each.

    ``classes`` are masks of the positions in ``demands``; ``supply`` and each
    option give units by class, in their order, none more than could be used.
    """

    demands: Totals
    classes: Totals
    supply: Totals
    groups: tuple[tuple[tuple[Totals, ...], int], ...]


def solve(problem: Problem, work: Work) -> tuple[Picks, ...] | None:
    """How many blocks of each group to use which way; None if no choice serves everybody."""
    caps = tuple(sum(problem.demands[asker] for asker in bits(taker)) for taker in problem.classes)
    work.spend(sum([count * len(options) for options, count in problem.groups]) // 4)
    stages = [ways for options, count in problem.groups for ways in _ways(options, count)]
    tops = _tops(problem, stages)
    best = _sum(problem.supply, tops[0], caps)
    if not _serves(problem, best, work):
        return None
    totals: dict[Totals, _Path | None] = {problem.supply: None}
    for ways, top in zip(stages, tops[1:], strict=True):
        if best in totals:
            break
        totals = _extended(totals, ways, caps, work)
        totals = _undominated({t: p for t, p in totals.items() if _promising(problem, t, top)}, caps, work)
    found = [best] if best in totals else [total for total in totals if _serves(problem, total, work)]
    return _picks(problem, totals[found[0]]) if found else None


def _tops(problem: Problem, stages: Sequence[Sequence[tuple[Totals, Picks]]]) -> list[Totals]:
    """The most that each stage and those after it could add to each class; nothing after the last."""
    tops = [(0,) * len(problem.classes)]
    for ways in reversed(stages):
        most = map(max, zip(*[more for more, _ in ways], strict=True))
        tops.append(tuple(map(add, tops[-1], most)))
    return tops[::-1]


def _sum(one: Totals, other: Totals, caps: Totals) -> Totals:
    return tuple(map(min, caps, map(add, one, other)))


def _ways(options: Sequence[Totals], count: int) -> Iterator[list[tuple[Totals, Picks]]]:
    """What the blocks of a group could add: all of them at once where there are two options, else one by one."""
    if len(options) == 2:  # noqa: PLR2004 # the number of options is what is compared
        one, other = options
        yield [
            (tuple(n * a + (count - n) * b for a, b in zip(one, other, strict=True)), (n, count - n))
            for n in range(count, -1, -1)
        ]
        return
    for _ in range(count):
        yield [
            (option, tuple(int(number == picked) for number in range(len(options))))
            for picked, option in enumerate(options)
        ]


def _extended(
    totals: Mapping[Totals, _Path | None], ways: Sequence[tuple[Totals, Picks]], caps: Totals, work: Work
) -> dict[Totals, _Path | None]:
    extended: dict[Totals, _Path | None] = {}
    for total, path in totals.items():
        work.spend(len(ways))
        for more, picks in ways:
            extended.setdefault(_sum(total, more, caps), _Path(path, picks))
    return extended


def _promising(problem: Problem, total: Totals, top: Totals) -> bool:
    """Whether each asker for itself could have enough in the end."""
    return all(
        sum(units + more for taker, units, more in zip(problem.classes, total, top, strict=True) if taker >> asker & 1)
        >= demand
        for asker, demand in enumerate(problem.demands)
    )


def _undominated(totals: dict[Totals, _Path | None], caps: Totals, work: Work) -> dict[Totals, _Path | None]:
    """The totals of which none is exceeded by another in everything.

    Compared as numbers, a field for each class with a bit above it that a
    subtraction borrows where the class has less.
    """
    if len(totals) <= 1:
        return totals
    shifts = list(accumulate([cap.bit_length() + 1 for cap in caps], initial=0))
    guards = sum([1 << (shift - 1) for shift in shifts[1:]])
    larger: list[int] = []
    kept: dict[Totals, _Path | None] = {}
    for total in sorted(totals, key=sum, reverse=True):
        work.spend(1 + len(larger) // 12)
        packed = sum(map(lshift, total, shifts))
        for other in larger:
            if (other - packed) & guards == guards:
                break
        else:
            larger.append(packed | guards)
            kept[total] = totals[total]
    return kept


def _serves(problem: Problem, total: Totals, work: Work) -> bool:
    """Whether so much of each class can be divided so that every asker has what it asked for."""
    work.spend(1 + len(problem.classes) // 4)
    matching = Matching(
        Stock(sum(1 << number for number, units in enumerate(total) if units), dict(enumerate(total))),
        [
            sum(1 << number for number, taker in enumerate(problem.classes) if taker >> asker & 1)
            for asker in range(len(problem.demands))
        ],
        work,
    )
    return all(matching.serve(asker, units) for asker, units in enumerate(problem.demands))


def _picks(problem: Problem, path: _Path | None) -> tuple[Picks, ...]:
    """The choices along a path, for each group; the first option for those that were not gone through any more."""
    steps: list[Picks] = []
    while path is not None:
        steps.append(path.picks)
        path = path.before
    picks: list[Picks] = []
    for options, count in problem.groups:
        stages = 1 if len(options) == 2 else count  # noqa: PLR2004 # as in _ways
        taken = [steps.pop() for _ in range(min(stages, len(steps)))]
        used = list(map(sum, zip(*taken, strict=True))) if taken else [0] * len(options)
        used[0] += count - sum(used)
        picks.append(tuple(used))
    return tuple(picks)
