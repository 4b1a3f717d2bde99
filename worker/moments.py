"""Reading moments that people write: for the command line and the read API alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(3000, 1, 1, tzinfo=UTC)
"""Nearer to the ends of the calendar a moment has no equivalent in other zones, or means infinity to the database."""


def read_moment(text: str) -> datetime:
    """A moment in ISO 8601, in UTC unless it says otherwise; given back in UTC.

    Raises:
        ValueError: it is none, or not between the years 1900 and 3000.
    """
    read = datetime.fromisoformat(text)
    try:
        moment = read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None
    if not _FIRST <= moment <= _LAST:
        raise ValueError("beyond the years 1900 to 3000")
    return moment
