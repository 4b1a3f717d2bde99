"""Moments on the command line: ISO 8601, in UTC unless they say otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import typer

from worker.moments import read_moment


def moment(text: str | datetime) -> datetime:
    """Read a moment.

    Raises:
        typer.BadParameter: it is no ISO 8601 date or time, or too far away.
    """
    try:
        return text if isinstance(text, datetime) else read_moment(text)
    except ValueError:
        raise typer.BadParameter("should be a moment such as 2026-11-22T07:00:00Z, from 1900 to 3000") from None


def Moment(help: str) -> Any:  # noqa: A002, N802 - an option like typer.Option, with its arguments
    """An option that takes a moment."""
    return typer.Option(parser=moment, metavar="TIME", help=help)
