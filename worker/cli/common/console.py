"""Printing: tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import typer
from pydantic_core import to_json

from worker.printable import escaped, escaped_json

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

Row = Mapping[str, object]

_KEPT_WHOLE: Final = 36
"""Cells up to this length are not folded: moments, states, UUIDs."""
_GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the row's key, and the title over it."""

    key: str
    title: str
    number: bool = False


def columns(spec: str) -> list[Column]:
    """Read a table's columns from ``key`` words; a ``#`` before the key aligns a number to the right.

    A title other than the key follows it after a colon, with ``_`` for blanks.
    """
    parts = [word.partition(":") for word in spec.split()]
    return [
        Column(key.removeprefix("#"), title.replace("_", " ") or key.removeprefix("#"), number=key.startswith("#"))
        for key, _, title in parts
    ]


def printable(value: object) -> str:
    """A cell's text. Nothing that steers a terminal survives: such characters are shown as escapes."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case list() | tuple():
            return ",".join(printable(part) for part in value) or "-"
        case Mapping():
            return escaped(to_json(value).decode())
        case _:
            return escaped(str(value))


def print_rows(rows: Iterable[Row], spec: str, *, as_json: bool) -> int:
    """Print rows as a table, or as a JSON array with one element a line; the number of rows.

    The array is written while the rows arrive, the table once its widths are known.
    """
    if as_json:
        return _print_array(rows)
    table = list(rows)
    (_print_rich if sys.stdout.isatty() else _print_plain)(table, columns(spec))
    return len(table)


def print_document(document: object, *, as_json: bool) -> None:
    """Print one object: as JSON, or as ``key  value`` lines."""
    if as_json:
        print_line(escaped_json(to_json(document, indent=2).decode()))
        return
    pairs = [{"key": key, "value": value} for key, value in _mapping(document).items()]
    width = max((len(str(pair["key"])) for pair in pairs), default=0)
    for pair in pairs:
        print_line(f"{printable(pair['key']):<{width}}  {printable(pair['value'])}")


def print_json_line(document: object) -> None:
    """Print one object as one line of JSON, at once, so that a reader at the other end of a pipe sees it."""
    print_line(escaped_json(to_json(document).decode()), flush=True)


def print_line(text: str, *, flush: bool = False) -> None:
    """Print one line of the result."""
    sys.stdout.write(f"{text}\n")
    if flush:
        sys.stdout.flush()


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    sys.stderr.write(f"{escaped(text)}\n")
    sys.stderr.flush()


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error while the block runs; nothing where that is no terminal.

    Yields a function that advances the bar by a number of steps.
    """
    if not sys.stderr.isatty():
        yield lambda _steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


def _mapping(document: object) -> Mapping[str, object]:
    if isinstance(document, Mapping):
        return document
    raise TypeError(f"{type(document).__name__} is no mapping")


def _print_array(rows: Iterable[Row]) -> int:
    count = 0
    for count, row in enumerate(rows, start=1):
        sys.stdout.write(f"{'[' if count == 1 else ','}\n  {escaped_json(to_json(row).decode())}")
    print_line("[]" if count == 0 else "\n]")
    return count


def _print_plain(rows: Sequence[Row], shown: Sequence[Column]) -> None:
    lines = [[column.title.upper() for column in shown]]
    lines += [[printable(row[column.key]) for column in shown] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(shown))]
    for line in lines:
        cells = (
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(line, widths, shown, strict=True)
        )
        print_line("  ".join(cells).rstrip())


def _print_rich(rows: Sequence[Row], shown: Sequence[Column]) -> None:
    """A table that fits the terminal; on a terminal too narrow for it, plain lines that the terminal breaks."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    floors = [_floor(rows, column) for column in shown]
    if sum(floors) + _GAP * len(shown) > console.width:
        _print_plain(rows, shown)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, floor in zip(shown, floors, strict=True):
        justify: Literal["left", "right"] = "right" if column.number else "left"
        table.add_column(column.title, justify=justify, overflow="fold", min_width=floor)
    for row in rows:
        table.add_row(*(Text(printable(row[column.key])) for column in shown))
    console.print(table)


def _floor(rows: Sequence[Row], column: Column) -> int:
    """The width below which a column is hard to read: numbers and short words are not folded."""
    longest = max((len(printable(row[column.key])) for row in rows), default=0)
    title = max(map(len, column.title.split()))
    return max(title, longest if column.number or longest <= _KEPT_WHOLE else _KEPT_WHOLE)
