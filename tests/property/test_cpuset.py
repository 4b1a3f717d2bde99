from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import MAX_CPU, format_cpu_set, lowest_cpu, parse_cpu_mask, parse_cpu_set

CPUS = st.frozensets(st.integers(0, 600) | st.integers(0, MAX_CPU), max_size=30)


@given(CPUS)
def test_a_cpu_set_that_is_written_is_read_as_it_was(cpus: frozenset[int]) -> None:
    text = format_cpu_set(cpus)
    assert parse_cpu_set(text) == cpus
    assert parse_cpu_mask(text) == sum(1 << cpu for cpu in cpus)


@given(CPUS)
def test_a_cpu_set_is_written_in_the_shortest_ascending_form(cpus: frozenset[int]) -> None:
    numbers = [int(number) for number in re.findall(r"[0-9]+", format_cpu_set(cpus))]
    assert numbers == sorted(set(numbers))
    ranges = [part.split("-") for part in format_cpu_set(cpus).split(",") if part]
    assert all(int(left[-1]) + 1 < int(right[0]) for left, right in pairwise(ranges))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9)), max_size=20))
def test_ranges_may_come_in_any_order_and_overlap(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + length}" if length else str(first) for first, length in ranges)
    expected = {cpu for first, length in ranges for cpu in range(first, first + length + 1)}
    assert parse_cpu_set(text) == expected
    assert parse_cpu_set(format_cpu_set(parse_cpu_set(text))) == expected


@given(st.text(st.sampled_from("0123456789,- x٣"), max_size=12))
def test_what_is_refused_as_a_set_is_refused_as_a_mask(text: str) -> None:
    try:
        cpus = parse_cpu_set(text)
    except ValueError:
        with pytest.raises(ValueError, match="part"):
            parse_cpu_mask(text)
    else:
        assert parse_cpu_mask(text) == sum(1 << cpu for cpu in cpus)


@given(CPUS.filter(bool))
def test_the_lowest_cpu_of_a_mask_is_found(cpus: frozenset[int]) -> None:
    assert lowest_cpu(parse_cpu_mask(format_cpu_set(cpus))) == min(cpus)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0,x", "part 2 is neither a CPU number nor a range such as 0-3"),
        ("3-1", "part 1, a range, runs backwards"),
        ("0-65536", "part 1 is above 65535, the highest CPU number"),
    ],
)
def test_a_wrong_part_is_named_by_its_place(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{fault}$"):
        parse_cpu_set(text)
