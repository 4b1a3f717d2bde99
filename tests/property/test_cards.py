"""Many unequal cards, asked for whole and by their functions: found exactly where there is a way, and only there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.oracle.exact_devices import assignable
from tests.unit.accounting.builders import NOBODY, cell, host, pci, refused, shape, wanted
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Placement

MORE = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
PRODUCTS = ["0001", "0002"]

Card = tuple[str, int, str, int]
"""How it can be used (as functions, or as mediated devices of a type), how many, its product, its cell."""

CARDS = st.tuples(
    st.sampled_from(["vf", "vf", "vf", "mdev"]), st.integers(1, 9), st.sampled_from(PRODUCTS), st.sampled_from([0, 1])
)


def devices(cards: Sequence[Card]) -> Iterator[dict[str, Any]]:
    for number, (kind, count, made, where) in enumerate(cards):
        address = f"0000:{number:02x}:00.0"
        common = {"product": made, "cell": where}
        if kind == "mdev":
            yield pci(address, type="mdev", mdev_types={"small": count, "large": max(1, count // 2)}, **common)
            continue
        yield pci(address, type="pf", **common)
        for function in range(count):
            yield pci(f"0000:{number:02x}:01.{function}", type="vf", parent=address, **common)


def ways(card: Card) -> list[tuple[str, int]]:
    """What the card can be used as, and how many of it."""
    kind, count, _, _ = card
    return [("pf", 1), ("vf", count)] if kind == "vf" else [("small", count), ("large", max(1, count // 2))]


def wish(wants: Sequence[tuple[str, str | None, int]]) -> Any:
    """Requests: what, of which product if it matters, and how many."""
    requests = []
    for number, (kind, made, count) in enumerate(wants):
        match = {} if made is None else {"product": made}
        mediated = kind in {"small", "large"}
        if mediated:
            match["mdev_type"] = kind
        requests.append(
            wanted(f"w{number}", count=count, type="mdev" if mediated else kind, match=[match], affinity="required")
        )
    return shape(devices=requests)


def here(cards: Sequence[Card]) -> Any:
    return host(cells=[cell(0, "0-3"), cell(1, "4-7")], devices=list(devices(cards)))


def planted(draw: Any, cards: Sequence[Card]) -> list[tuple[str, str | None, int]]:
    """Requests that together take all that there is when each card is used in one of its ways, drawn first."""
    pools: dict[str, list[str]] = {}
    for card in cards:
        kind, count = draw(st.sampled_from(ways(card)))
        pools.setdefault(kind, []).extend([card[2]] * count)
    wants = []
    for kind, pool in pools.items():
        while pool:
            made = draw(st.sampled_from([None, *sorted(set(pool))]))
            fit = [one for one in pool if made in {None, one}]
            count = draw(st.integers(1, len(fit)))
            for one in fit[:count]:
                pool.remove(one)
            wants.append((kind, made, count))
    ordered: list[tuple[str, str | None, int]] = draw(st.permutations(wants))
    return ordered


@MORE
@given(st.data())
def test_requests_that_sixteen_unequal_cards_can_just_serve_are_served(data: st.DataObject) -> None:
    cards = data.draw(st.lists(CARDS, min_size=16, max_size=16))
    wants = planted(data.draw, cards)
    result = place(here(cards), NOBODY, wish(wants))
    assert isinstance(result, Placement), [(reason.code, reason.detail) for reason in result]


@MORE
@given(st.data())
def test_a_verdict_is_that_of_trying_every_way_to_use_each_card(data: st.DataObject) -> None:
    cards = data.draw(st.lists(CARDS, min_size=2, max_size=7))
    wants = planted(data.draw, cards)
    grown = data.draw(st.integers(0, len(wants) - 1))
    kind, made, count = wants[grown]
    wants[grown] = (kind, made, count + data.draw(st.integers(0, 2)))
    expected = any(
        assignable([(kind, card[2], count) for card, (kind, count) in zip(cards, used, strict=True)], wants)
        for used in product(*map(ways, cards))
    )
    event(f"possible: {expected}")
    result = place(here(cards), NOBODY, wish(wants))
    assert isinstance(result, Placement) == expected
    if not expected:
        assert {reason.code for reason in refused(result)} == {"no_device_fit"}
        assert all(reason.short_by for reason in refused(result))


@settings(MORE, max_examples=40)
@given(st.lists(st.integers(1, 24), min_size=16, max_size=16, unique=True), st.integers(6, 12))
def test_so_many_whole_cards_leave_exactly_the_functions_of_the_largest_others(sizes: list[int], whole: int) -> None:
    cards: list[Card] = [("vf", size, "0001", 0) for size in sizes]
    functions = sum(sorted(sizes)[whole:])
    requests = [("vf", None, functions), ("pf", None, whole)]
    assert isinstance(place(here(cards), NOBODY, wish(requests)), Placement)
    one_more = refused(place(here(cards), NOBODY, wish([requests[1], ("vf", None, functions + 1)])))
    assert [(reason.code, reason.short_by) for reason in one_more] == [("no_device_fit", 1)]
