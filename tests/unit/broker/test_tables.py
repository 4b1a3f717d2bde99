from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.encode import field_table

from tests.property.test_messages import field, nested, sized, table
from worker.broker.tables import TABLE_MAX_BYTES, Headers, read_table, write_tables
from worker.broker.wire import read_content_header

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)
    | st.floats(width=32, allow_nan=False)
    | st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - bounds
        lambda moment: moment.replace(microsecond=0)
    )
)
NAMES = st.text("abc-", min_size=1, max_size=5)
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(NAMES, TREES, max_size=4))
def test_a_table_is_read_as_the_client_library_writes_it(fields: dict[str, Any]) -> None:
    assert read_table(field_table(fields)) == fields
    assert write_tables(fields, TABLE_MAX_BYTES) == fields


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"D\x02\0\0\x01\x39", Decimal("3.13")),
        (b"x" + sized(b"\0\xff"), b"\0\xff"),
        (b"S" + sized(b"a\0b"), "a\N{REPLACEMENT CHARACTER}b"),
        (b"S" + sized(b"\xff"), b"\xff"),
        (b"T" + b"\xff" * 8, 2**64 - 1),
        (b"T" + (1_700_000_000_500).to_bytes(8), datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)),
        (b"\0", None),
    ],
)
def test_what_no_producer_of_ours_writes_is_read_too(value: bytes, read: object) -> None:
    assert read_table(table([(b"a", value), (b"b", b"V")])) == {"a": read, "b": None}


def test_of_a_name_given_twice_the_last_value_holds_and_a_name_that_is_no_text_is_still_a_name() -> None:
    assert read_table(table([(b"a", b"t\0"), (b"a", b"t\1"), (b"\xff\0", b"V")])) == {"a": True, "��": None}


@pytest.mark.parametrize(
    "raw",
    [
        nested(17),
        nested(500),
        nested(500, b"A"),
        b"",
        b"\0\0",
        sized(b"\x05a"),
        sized(field(b"a", b"")),
        sized(field(b"a", b"Z")),
        sized(field(b"a", b"l\0")),
        sized(field(b"a", b"S\0\0\0\x09x")),
        sized(field(b"a", b"S\xff\xff\xff\xffx")),
        sized(field(b"a", b"F" + sized(b"\x09")) + b"\x01bV"),
    ],
)
def test_a_table_that_cannot_be_read_is_empty(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_table(raw)
    assert dict(Headers(raw)) == {}


def test_a_table_larger_than_any_library_sends_is_not_looked_at() -> None:
    for size, looked_at in ((TABLE_MAX_BYTES, True), (TABLE_MAX_BYTES + 1, False)):
        raw = table([(b"a", b"S" + sized(b"x" * (size - 11)))])
        assert len(raw) == size
        payload = b"\x00\x3c\x00\x00" + bytes(8) + b"\x20\x00" + raw
        _, properties = read_content_header(payload, 0, len(payload))
        assert bool(properties.headers) == looked_at


def test_reading_takes_time_in_proportion_to_the_size_of_a_table() -> None:
    def seconds(items: int) -> float:
        raw = table([(b"a", b"A" + sized(b"V" * items))])
        took = []
        for _ in range(5):
            start = process_time()
            read_table(raw)
            took.append(process_time() - start)
        return min(took)

    assert seconds(160_000) < 64 * seconds(10_000), "sixteen times the size, not the square of it"


def test_fields_that_cannot_be_written_or_do_not_fit_are_left_out_and_the_others_stay() -> None:
    fields = {"a": b"\xff", "b": 1e300, "c": 2**70, "d": "x" * 90, "e": "\ud800", "f": [object()], "g": "kept"}
    assert write_tables(fields, 80) == {"a": bytearray(b"\xff"), "g": "kept"}
