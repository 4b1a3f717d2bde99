"""Which way to use each block of devices, so that all requests can be served at once.

Only amounts matter here (:mod:`worker.accounting.assortment`). What can be
counted is counted first: requests that compete for nothing are looked at apart,
and if not even the best use of everything would do, there is no way. Then the
blocks are gone through once, keeping every total that can be reached and that
none exceeds (dynamic programming over Pareto-maximal sums): so equal blocks are
interchangeable, and no total is looked at twice. The answer is exact.
"""

from __future__ import annotations

from operator import add, ge
from typing import TYPE_CHECKING, NamedTuple

from worker.accounting.assortment import offers_no_less
from worker.accounting.devices import Stock
from worker.accounting.flow import Matching
from worker.accounting.modes import bits, union

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from worker.accounting.assortment import Amounts, Assortment
    from worker.accounting.work import Work

Totals = tuple[int, ...]
Picks = tuple[int, ...]
"""For each option of a group of blocks, how many of the blocks use it."""


class Asked(NamedTuple):
    """So many units, out of the offers in a mask."""

    units: int
    limit: int


class _Group(NamedTuple):
    """Blocks with the same options.

    Units by who could take them; everybody who could take something; and for
    each block the offers behind each option.
    """

    options: Sequence[Mapping[int, int]]
    takers: int
    members: list[list[int]]


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


def select(assortment: Assortment, asked: Iterable[Asked], work: Work) -> int | None:
    """Offers of which none excludes another and that can serve all requests, or None if there are none.

    Raises:
        TooComplexError: finding out takes more work than is left.
    """
    demands: dict[int, int] = {}
    for units, limit in asked:
        if units:
            reach = assortment.reach(limit)
            demands[reach] = demands.get(reach, 0) + units
    who = [0] * len(assortment.kinds)
    for position, reach in enumerate(demands):
        work.spend(1 + reach.bit_count() // 4)
        for kind in bits(reach):
            who[kind] |= 1 << position
    selected, supply, groups = _offered(assortment, who, work)
    amounts = tuple(demands.values())
    for part in _competing([*supply, *(group.takers for group in groups)], len(amounts), work):
        found = _serve(assortment, part, amounts, supply, groups, work)
        if found is None:
            return None
        selected |= found
    return selected


def _offered(assortment: Assortment, who: Sequence[int], work: Work) -> tuple[int, Mapping[int, int], Sequence[_Group]]:
    """What is offered whatever is chosen, as offers and as units by who could take them; and what choices there are.

    ``who`` gives for each kind the mask of those who could take it.
    """
    supply = _by_asker(assortment.loose, who)
    selected = assortment.catalog.apart.offers & assortment.wanted
    merged: dict[tuple[Amounts, ...], _Group] = {}
    for amounts, members in assortment.groups.items():
        work.spend(1 + len(amounts) * (4 + len(amounts)) // 2 + len(members) // 8)
        options = [_by_asker(option, who) for option in amounts]
        kept = _useful(options)
        if len(kept) == 1:
            selected |= union([offers[kept[0]] for offers in members])
            for taker, units in options[kept[0]].items():
                supply[taker] = supply.get(taker, 0) + units * len(members)
            continue
        key = tuple(tuple(sorted(options[number].items())) for number in kept)
        group = merged.setdefault(key, _Group([options[number] for number in kept], union(map(union, options)), []))
        group.members.extend([offers[number] for number in kept] for offers in members)
    return selected, supply, list(merged.values())


def _by_asker(amounts: Amounts, who: Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for kind, units in amounts:
        if taker := who[kind]:
            found[taker] = found.get(taker, 0) + units
    return found


def _useful(options: Sequence[Mapping[int, int]]) -> list[int]:
    """The positions of the options of which none offers nobody more than another does; one at least."""
    return [
        number
        for number, option in enumerate(options)
        if not any(
            rank != number and offers_no_less(other, option) and (rank < number or other != option)
            for rank, other in enumerate(options)
        )
    ]


def _competing(links: Iterable[int], askers: int, work: Work) -> list[int]:
    """The askers in sets that have nothing to do with each other, as masks of their positions."""
    joined: list[int] = [1 << position for position in range(askers)]
    for mask in links:
        work.spend(1 + len(joined) // 8)
        apart = [other for other in joined if not other & mask]
        if len(joined) - len(apart) > 1:
            joined = [*apart, union([other for other in joined if other & mask])]
    return joined


def _serve(
    assortment: Assortment,
    part: int,
    demands: Totals,
    supply: Mapping[int, int],
    groups: Sequence[_Group],
    work: Work,
) -> int | None:
    """The offers to use of the groups so that the askers in ``part`` are served, or None if there is no way."""
    own = [group for group in groups if group.takers & part]
    takers = {taker for taker in supply if taker & part}
    takers.update(taker for group in own for option in group.options for taker in option)
    askers = list(bits(part))
    classes = sorted(takers, key=lambda taker: (taker.bit_count(), taker))
    work.spend((len(askers) + len(groups) + len(supply)) // 8)
    work.spend(len(classes) * (2 + len(askers) // 4 + sum(len(group.options) for group in own) // 4))
    caps = [sum([demands[asker] for asker in bits(taker)]) for taker in classes]

    def total(units: Mapping[int, int]) -> Totals:
        return tuple([min(cap, units.get(taker, 0)) for taker, cap in zip(classes, caps, strict=True)])

    place = {asker: position for position, asker in enumerate(askers)}
    problem = Problem(
        tuple(demands[asker] for asker in askers),
        tuple(sum(1 << place[asker] for asker in bits(taker)) for taker in classes),
        total(supply),
        tuple((tuple(map(total, group.options)), len(group.members)) for group in own),
    )
    if problem not in assortment.verdicts:
        assortment.verdicts[problem] = solve(problem, work)
    picks = assortment.verdicts[problem]
    if picks is None:
        return None
    return union([offers for group, pick in zip(own, picks, strict=True) for offers in _picked(group, pick)])


def _picked(group: _Group, picks: Picks) -> Iterator[int]:
    members = iter(group.members)
    for number, count in enumerate(picks):
        for _ in range(count):
            yield next(members)[number]


def solve(problem: Problem, work: Work) -> tuple[Picks, ...] | None:
    """How many blocks of each group to use which way; None if no choice serves everybody."""
    caps = tuple(sum(problem.demands[asker] for asker in bits(taker)) for taker in problem.classes)
    tops = _tops(problem)
    best = _sum(problem.supply, tops[0], caps)
    if not _serves(problem, best, work):
        return None
    totals: dict[Totals, _Path | None] = {problem.supply: None}
    for number, (options, count) in enumerate(problem.groups):
        if best in totals:
            break
        for ways in _ways(options, count):
            totals = _extended(totals, ways, caps, work)
        totals = _undominated({t: p for t, p in totals.items() if _promising(problem, t, tops[number + 1])}, work)
    found = [best] if best in totals else [total for total in totals if _serves(problem, total, work)]
    return _picks(problem, totals[found[0]]) if found else None


def _tops(problem: Problem) -> list[Totals]:
    """For each group, the most that it and those after it could add to each class."""
    tops = [(0,) * len(problem.classes)]
    for options, count in reversed(problem.groups):
        most = [max(units) * count for units in zip(*options, strict=True)]
        tops.append(tuple(top + more for top, more in zip(tops[-1], most, strict=True)))
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


def _undominated(totals: dict[Totals, _Path | None], work: Work) -> dict[Totals, _Path | None]:
    """The totals of which none is exceeded by another in everything."""
    if len(totals) == 1:
        return totals
    kept: list[Totals] = []
    for total in sorted(totals, key=sum, reverse=True):
        work.spend(1 + len(kept) // 2)
        if not any(all(map(ge, other, total)) for other in kept):
            kept.append(total)
    return {total: totals[total] for total in kept}


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
        if not steps:
            picks.append((count, *(0 for _ in options[1:])))
            continue
        parts = [steps.pop() for _ in range(1 if len(options) == 2 else count)]  # noqa: PLR2004 # as in _ways
        picks.append(tuple(map(sum, zip(*parts, strict=True))))
    return tuple(picks)
