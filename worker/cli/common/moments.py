"""Moments on the command line: ISO 8601, in UTC unless they say otherwise, or so long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer

from worker.moments import read_moment

_AGO: Final = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str | datetime) -> datetime:
    """Read a moment, or how long it is ago, such as ``90m`` (of s, m, h, d, w).

    Raises:
        typer.BadParameter: it is neither, or too far away.
    """
    if isinstance(text, datetime):
        return text
    try:
        if ago := _AGO.fullmatch(text):
            passed = timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            return read_moment((datetime.now(UTC) - passed).isoformat())
        return read_moment(text)
    except (ValueError, OverflowError):
        why = "should be a moment such as 2026-11-22T07:00:00Z, from 1900 to 3000, or so long ago, such as 90m or 7d"
        raise typer.BadParameter(why) from None


def Moment(help: str) -> Any:  # noqa: A002, N802 - an option like typer.Option, with its arguments
    """An option that takes a moment."""
    return typer.Option(parser=moment, metavar="TIME", help=help)
