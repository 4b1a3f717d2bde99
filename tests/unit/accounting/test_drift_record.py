from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.accounting.rules.drift import Difference, changed, differences

ONE, OTHER = UUID(int=1), UUID(int=2)


def amount(ledger: int, hypervisor: int, number: int | None = None, *, instance: UUID = ONE) -> Difference:
    return Difference("cn-1", instance, "amount", f"{ledger} and {hypervisor}", ledger, hypervisor, number)


def test_what_was_not_known_begins_and_what_is_not_found_any_more_is_over() -> None:
    known, fresh = amount(1, 2, 7), amount(1, 2, instance=OTHER)
    change = changed([known], [fresh])
    assert (change.begun, change.kept, change.ended) == ([fresh], [], [known])


def test_what_still_differs_is_the_same_one_with_the_values_of_now() -> None:
    change = changed([amount(1, 2, 7)], [amount(1, 3)])
    assert (change.begun, change.kept, change.ended) == ([], [amount(1, 3, 7)], [])


def test_of_two_of_one_kind_the_one_that_goes_is_the_one_that_is_gone() -> None:
    vcpus, memory = amount(2, 4, 1), amount(1024, 512, 2)
    change = changed([vcpus, memory], [amount(1024, 256)])
    assert (change.begun, change.kept, change.ended) == ([], [amount(1024, 256, 2)], [vcpus])


@pytest.mark.parametrize("value", [None, 3, [1, 2], {"vcpus": 2, "memory_mib": 4}, (1, 2)])
def test_values_are_compared_as_they_come_back_from_the_database(value: object) -> None:
    told = {"kind": "pins", "instance": ONE, "detail": "x", "ledger": value, "hypervisor": value}
    (found,) = differences("cn-1", [told])
    assert found.ledger == (list(value) if isinstance(value, tuple) else value)
    assert not changed([found], [found]).begun


FOUND = st.lists(
    st.builds(
        Difference,
        node=st.just("cn-1"),
        instance=st.sampled_from([ONE, OTHER, None]),
        kind=st.sampled_from(["amount", "pins"]),
        detail=st.just(""),
        ledger=st.integers(0, 2),
        hypervisor=st.integers(0, 2),
    ),
    max_size=6,
)


@given(FOUND, FOUND)
def test_everything_found_is_on_record_once_and_nothing_else(before: list[Difference], found: list[Difference]) -> None:
    known = [replace(one, id=number) for number, one in enumerate(before)]
    change = changed(known, found)
    bare = sorted(str((one.instance, one.kind, one.ledger, one.hypervisor)) for one in [*change.begun, *change.kept])
    assert bare == sorted(str((one.instance, one.kind, one.ledger, one.hypervisor)) for one in found)
    assert sorted(one.id or 0 for one in [*change.kept, *change.ended]) == [one.id for one in known]
    for kind in ("amount", "pins"):
        for instance in (ONE, OTHER, None):
            begun = [one for one in change.begun if (one.instance, one.kind) == (instance, kind)]
            ended = [one for one in change.ended if (one.instance, one.kind) == (instance, kind)]
            assert not (begun and ended), "what differs otherwise than before is the same difference"
