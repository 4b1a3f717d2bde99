"""``nodeledger history``: the lines of the ledger."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from worker.cli.common import console
from worker.cli.common.moments import Moment
from worker.cli.common.running import run
from worker.servers import reading

if TYPE_CHECKING:
    from worker.ledger.history import HistoryFilter, HistoryLine

_PAGE: Final = 1000


def history(
    node: Annotated[str | None, typer.Option(help="Only this node.")] = None,
    instance: Annotated[UUID | None, typer.Option(help="Only this instance.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project.")] = None,
    since: Annotated[datetime | None, Moment("Only from then on.")] = None,
    until: Annotated[datetime | None, Moment("Only before then.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many of the newest at most.")] = 100,
    as_json: console.JsonFlag = False,
) -> None:
    """Show how use changed, line by line, the newest last."""
    from worker.ledger.history import HistoryFilter

    lines = run(_lines(HistoryFilter(node, instance, project, since, until), limit))
    rows = map(asdict, lines) if as_json else map(_row, lines)
    console.print_rows(rows, "#seq at node instance project kind changes:change_(used_after)", as_json=as_json)


async def _lines(which: HistoryFilter, limit: int) -> list[HistoryLine]:
    from worker.ledger.history import history as read

    found: list[HistoryLine] = []
    async with reading() as pool, pool.acquire() as connection:
        while len(found) < limit:
            wanted = min(_PAGE, limit - len(found))
            page = await read(connection, which, before=found[-1].seq if found else None, limit=wanted)
            found += page
            if len(page) < wanted:
                break
    return found[::-1]


def _row(line: HistoryLine) -> dict[str, object]:
    plain = {name: change for name, change in line.changes.items() if "/" not in name}
    changes = " ".join(f"{name} {change.delta:+d} ({change.used_after})" for name, change in plain.items())
    return {**asdict(line), "changes": changes or None}
