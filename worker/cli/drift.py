"""``nodeledger drift``: where the ledger and the hypervisors differ, and since when."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from worker.cli.common import console
from worker.cli.common.running import run
from worker.servers import reading

if TYPE_CHECKING:
    from worker.ledger.drift import Drift, DriftFilter

_PAGE: Final = 1000
_COLUMNS: Final = "node kind instance first_seen last_seen resolved_at detail"


def drift(
    node: Annotated[str | None, typer.Option(help="Only of this node.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind: orphan, ghost, amount, pins, devices, …")] = None,
    instance: Annotated[UUID | None, typer.Option(help="Only of this instance.")] = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Also what is over.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")] = 1000,
    as_json: console.JsonFlag = False,
) -> None:
    """Show what differs between the ledger and the hypervisors, as the workers saw it last, and since when.

    Nothing is asked of a hypervisor: `nodeledger audit` looks now.
    """
    from worker.ledger.drift import DriftFilter

    found = run(_drift(DriftFilter(node, kind, instance, resolved), limit))
    console.print_rows(map(asdict, found), _COLUMNS, as_json=as_json)
    if len(found) == limit:
        console.note(f"the first {limit}; --limit shows more")


async def _drift(which: DriftFilter, limit: int) -> list[Drift]:
    from worker.ledger.drift import drift as read

    found: list[Drift] = []
    async with reading() as pool, pool.acquire() as connection:
        while len(found) < limit:
            wanted = min(_PAGE, limit - len(found))
            page = await read(connection, which, after=found[-1].id if found else 0, limit=wanted)
            found += page
            if len(page) < wanted:
                break
    return found
