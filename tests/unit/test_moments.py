from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.moments import read_moment


def test_a_moment_without_a_zone_is_utc_and_every_other_becomes_so() -> None:
    assert read_moment("2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)
    assert read_moment("2026-11-22T07:00:00+02:00").isoformat() == "2026-11-22T05:00:00+00:00"


@pytest.mark.parametrize(
    "text",
    ["yesterday", "0001-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999"],
)
def test_what_no_database_can_reckon_with_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_moment(text)
