"""SQL lives in files, one statement each, named after what it does; here is how they are read and given their values.

Up to three parameters go by position (``$1``). More have names: ``:node`` is one
value, ``:answers.status`` one column of several rows, an array. Names are turned
into numbers once, when a statement is first used, and only if every one of them
has a value and every value a use.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection | PoolConnectionProxy"
"""A connection of one's own, or one lent by a pool."""

_FOLDER: Final = files("worker.ledger") / "sql"

_TOKEN: Final = re.compile(
    r"""
    \b[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"  # texts and quoted names
    | --[^\n]* | /\*.*?\*/                                        # comments
    | \$(?P<tag>(?:[a-zA-Z_]\w*)?)\$.*?\$(?P=tag)\$               # texts between dollars
    | ::                                                          # a cast
    | :(?P<named>[a-z_]\w*(?:\.[a-z_]\w*)?)
    | \$(?P<numbered>\d+)
    """,
    re.VERBOSE | re.DOTALL,
)
_UNNEST: Final = re.compile(
    r"unnest\s*\((?P<columns>[^()]*)\)(?:\s+WITH\s+ORDINALITY)?(?:\s+AS\s+\w+\s*\((?P<names>[^()]*)\))?", re.IGNORECASE
)


class StatementError(NodeledgerError):
    """A statement and the values given to it do not belong together; the message names what differs."""


def sql(name: str) -> str:
    """The text of ``worker/ledger/sql/<name>.sql``.

    Raises:
        KeyError: there is no statement of that name.
    """
    return _texts()[name]


@cache
def _texts() -> dict[str, str]:
    """Every statement, read with the first: a process that runs out of descriptors later has them all."""
    entries = [entry for entry in _FOLDER.iterdir() if entry.name.endswith(".sql")]
    return {entry.name.removesuffix(".sql"): entry.read_text("utf-8") for entry in entries}


@cache
def statement(name: str) -> str:
    """A statement whose parameters go by position.

    Raises:
        StatementError: its parameters have names; see :func:`bound`.
    """
    text = sql(name)
    if named := placeholders(text):
        raise StatementError(f"{name}.sql has named parameters, give them by name: {', '.join(named)}")
    return text


def bound(name: str, /, **values: Any) -> tuple[Any, ...]:
    """A statement and its values, as a connection's methods take them.

    A named tuple holds the columns of several rows: its field ``status`` given
    as ``answers`` is the placeholder ``:answers.status``.

    Raises:
        StatementError: a placeholder has no value, a value has no placeholder, or
            a column is given another's name.
    """
    text, are_columns = _resolved(name, tuple(values), tuple(map(type, values.values())))
    arguments = [text]
    for value, several in zip(values.values(), are_columns, strict=True):
        if several:
            arguments += value
        else:
            arguments.append(value)
    return tuple(arguments)


@cache
def _resolved(name: str, names: tuple[str, ...], kinds: tuple[type, ...]) -> tuple[str, tuple[bool, ...]]:
    """The text with numbers, and which of the values are columns; for each kind of values once."""
    fields = [getattr(kind, "_fields", None) for kind in kinds]
    given: list[str] = []
    for key, columns in zip(names, fields, strict=True):
        given += [key] if columns is None else [f"{key}.{column}" for column in columns]
    try:
        text = numbered(sql(name), {placeholder: number for number, placeholder in enumerate(given, 1)})
    except StatementError as error:
        raise StatementError(f"{name}.sql: {error}") from None
    return text, tuple(columns is not None for columns in fields)


def placeholders(text: str) -> list[str]:
    """The names of a statement's parameters, in the order in which they are first used."""
    return list(dict.fromkeys(token["named"] for token in _TOKEN.finditer(text) if token["named"]))


def numbered(text: str, numbers: Mapping[str, int]) -> str:
    """The text with each named parameter as its number.

    Raises:
        StatementError: see :func:`bound`.
    """
    used = placeholders(text)
    faults = [f"nothing is given as :{name}" for name in used if name not in numbers]
    faults += [f"nothing uses :{name}" for name in numbers if name not in used]
    if used:
        faults += [f"${token['numbered']} has no name" for token in _TOKEN.finditer(text) if token["numbered"]]
    faults += _misnamed(text)
    if faults:
        raise StatementError("; ".join(faults))
    return _TOKEN.sub(lambda token: f"${numbers[token['named']]}" if token["named"] else token[0], text)


def _misnamed(text: str) -> list[str]:
    """Columns side by side are named after themselves, so that none is taken for its neighbour."""
    faults = []
    for found in _UNNEST.finditer(text):
        columns = [column.partition("::")[0].strip() for column in found["columns"].split(",")]
        if len(columns) > 1 and columns[0].startswith(":"):
            names = [name.strip() for name in (found["names"] or "").split(",")]
            expected = [column.rpartition(".")[2] for column in columns]
            if names[: len(expected)] != expected:
                faults.append(f"unnest gives ({', '.join(expected)}) and names them ({', '.join(names)})")
    return faults
