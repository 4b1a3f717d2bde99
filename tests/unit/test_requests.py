"""The parameters of a request, whatever somebody writes into an address."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote
from uuid import UUID

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import WRITTEN
from worker.api.parameters import MAX_LIMIT, Parameters
from worker.api.problems import ProblemError

KNOWN = ("limit", "node", "instance", "since")


def parameters(query: str) -> Parameters:
    return Parameters(make_mocked_request("GET", f"/v1/nodes?{query}"), KNOWN)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=1001", "limit=00000000000000000001000000", "limit=1e3", "limit=+5", "limit=5.0",
        "limit=%D9%A3", "limit=0x10", "limit=" + "9" * 1100, "node=" + "x" * 1025, "node=a%00b", "node=a%C2%9Bb",
        "node=a%0Ab", "since=9999-12-31T23:59:59-23:59", "since=0001-01-01T00:00:00%2B23:59", "since=now",
        "instance=1", "unknown=1", "node=a&node=b",
    ],
)  # fmt: skip
def test_numbers_and_texts_of_a_request_are_read_strictly(query: str) -> None:
    with pytest.raises(ProblemError):
        read(query)


def test_leading_zeros_are_no_larger_number() -> None:
    assert parameters("limit=0000001000").limit() == MAX_LIMIT


def read(query: str) -> tuple[int, str | None, UUID | None, datetime | None]:
    given_ = parameters(query)
    return given_.limit(), given_.text("node"), given_.uuid("instance"), given_.moment("since")


@given(st.dictionaries(st.sampled_from([*KNOWN, "else"]), st.text(max_size=40), max_size=4))
def test_any_query_is_read_within_bounds_or_refused_in_a_short_sentence(query: dict[str, str]) -> None:
    written = "&".join(f"{name}={quote(value, errors='replace')}" for name, value in query.items())
    told = ""
    limit, node = MAX_LIMIT, None
    try:
        limit, node, _, _ = read(written)
    except ProblemError as problem:
        told = problem.detail
    assert len(told) < 300
    assert told.isascii()
    assert 1 <= limit <= MAX_LIMIT
    assert node is None or WRITTEN.allows(node)
