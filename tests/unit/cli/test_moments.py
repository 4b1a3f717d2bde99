from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from worker.cli.common.moments import moment


@pytest.mark.parametrize(
    ("text", "passed"), [("90m", timedelta(minutes=90)), ("0s", timedelta()), ("7d", timedelta(days=7))]
)
def test_a_moment_may_be_said_by_how_long_it_is_ago(text: str, passed: timedelta) -> None:
    before = datetime.now(UTC)
    assert before <= moment(text) + passed <= datetime.now(UTC)


def test_a_moment_is_in_utc_unless_it_says_otherwise() -> None:
    assert moment("2026-01-01T01:00:00+01:00") == moment("2026-01-01") == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "1", "h", "1 h", "-1h", "1.5h", "1h30m", "999999w", "1y", "\u0661h", "never"])
def test_what_is_no_moment_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="such as 90m"):
        moment(text)
