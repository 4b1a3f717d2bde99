"""Reading a request's parameters strictly: an unknown one or a wrong value is a problem, not ignored."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from http import HTTPStatus
from typing import Final
from uuid import UUID

from aiohttp import web

from schemas.base import WRITTEN
from worker.api.problems import ProblemError
from worker.moments import read_moment

MAX_LIMIT: Final = 1000
_MAX_TEXT: Final = 1024
_MAX_NUMBER: Final = 2**63 - 1


class Parameters:
    """The query of one request.

    Raises:
        ProblemError: a parameter is not among ``known``, or given twice.
    """

    def __init__(self, request: web.Request, known: Collection[str]) -> None:
        self._given = request.query
        for name in self._given:
            if name not in known:
                raise wrong(name, f"is unknown; known are {', '.join(sorted(known)) or 'none'}")
            if len(self._given.getall(name)) > 1:
                raise wrong(name, "is given twice")

    def text(self, name: str) -> str | None:
        """A text that the database can hold; ``None`` if it is not given or empty."""
        value = self._given.get(name)
        if value and (len(value) > _MAX_TEXT or not WRITTEN.allows(value)):
            raise wrong(name, f"should be printable and at most {_MAX_TEXT} characters")
        return value or None

    def number(self, name: str, default: int | None = None, *, most: int = _MAX_NUMBER) -> int | None:
        """A number from 1 to ``most``."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdecimal()) or not 1 <= int(value) <= most:
            raise wrong(name, f"should be a number from 1 to {most}")
        return int(value)

    def limit(self) -> int:
        """How many rows at most."""
        return self.number("limit", 100, most=MAX_LIMIT) or 100

    def uuid(self, name: str) -> UUID | None:
        """A UUID."""
        value = self.text(name)
        return None if value is None else read_uuid(name, value)

    def moment(self, name: str) -> datetime | None:
        """A moment in ISO 8601, in UTC unless it says otherwise."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return read_moment(value)
        except ValueError:
            raise wrong(name, "should be a moment such as 2026-11-22T07:00:00Z, in the years 1900 to 3000") from None


def read_uuid(name: str, value: str) -> UUID:
    """A UUID from a path or a query.

    Raises:
        ProblemError: it is none.
    """
    try:
        return UUID(value)
    except ValueError:
        raise wrong(name, "should be a UUID") from None


def wrong(name: str, reason: str) -> ProblemError:
    """The problem of a parameter; its value is not repeated."""
    return ProblemError(HTTPStatus.BAD_REQUEST, f"{name[:64]}: {reason}")
