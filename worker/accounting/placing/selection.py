"""Which way to use each block of devices, so that all requests can be served at once.

Only amounts matter here (:mod:`worker.accounting.placing.assortment`). What can be
counted is counted first: blocks without a choice add to what there is,
requests that compete for nothing are looked at apart, and problems that differ
in nothing are solved once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from worker.accounting.host.modes import bits, union
from worker.accounting.placing.assortment import offers_no_less
from worker.accounting.placing.solving import Picks, Problem, Totals, solve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from worker.accounting.placing.assortment import Amounts, Assortment
    from worker.accounting.work import Work


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


class _Contest(NamedTuple):
    """What some requests could have: what is used in any case, as offers and as units by who could take them.

    Then the blocks with a choice, and the requests in sets that compete; and for
    a set and the units it asked for, what was found to serve it.
    """

    selected: int
    supply: Mapping[int, int]
    groups: Sequence[_Group]
    parts: Sequence[int]
    served: dict[tuple[int, Totals], int | None]


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
    reaches = tuple(demands)
    if reaches not in assortment.contests:
        assortment.contests[reaches] = _contest(assortment, reaches, work)
    contest: _Contest = assortment.contests[reaches]
    amounts = tuple(demands.values())
    selected = contest.selected
    work.spend(1)
    for part in contest.parts:
        key = part, tuple([amounts[asker] for asker in bits(part)])
        if key not in contest.served:
            contest.served[key] = _serve(assortment, part, amounts, contest.supply, contest.groups, work)
        found = contest.served[key]
        if found is None:
            return None
        selected |= found
    return selected


def _contest(assortment: Assortment, reaches: Sequence[int], work: Work) -> _Contest:
    """What is offered to requests that could take from the kinds in each of the masks, however much they ask."""
    who = [0] * len(assortment.kinds)
    for position, reach in enumerate(reaches):
        work.spend(1 + reach.bit_count() // 4)
        for kind in bits(reach):
            who[kind] |= 1 << position
    selected, supply, groups = _offered(assortment, who, work)
    links = [*supply, *(group.takers for group in groups)]
    return _Contest(selected, supply, groups, _competing(links, len(reaches), work), {})


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
    own.sort(key=lambda group: -max([max(option.values()) for option in group.options]))
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
