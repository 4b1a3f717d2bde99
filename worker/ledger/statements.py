"""SQL lives in files, one statement each, named after what it does; here is how they are read and run."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection | PoolConnectionProxy"
"""A connection of one's own, or one lent by a pool."""

_FOLDER: Final = files("worker.ledger") / "sql"


@cache
def statement(name: str) -> str:
    """The text of ``worker/ledger/sql/<name>.sql``.

    Raises:
        FileNotFoundError: there is no statement of that name.
    """
    return (_FOLDER / f"{name}.sql").read_text("utf-8")
