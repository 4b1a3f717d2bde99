"""``nodeledger verify``: recompute every total from the ledger and the allocations, and compare."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.servers import writing

if TYPE_CHECKING:
    from worker.ledger.verify import Difference


def verify(as_json: console.JsonFlag = False) -> None:
    """Recompute every total from the ledger and the allocations; exit status 1 on any difference."""
    found = run(_differences())
    if as_json:
        console.print_document({"ok": not found, "differences": [asdict(one) for one in found]}, as_json=True)
    elif found:
        console.print_rows(map(asdict, found), "rule node instance subject detail", as_json=False)
    else:
        console.print_line("every total agrees with the ledger and the allocations")
    raise typer.Exit(FINDING if found else OK)


async def _differences() -> list[Difference]:
    from worker.ledger.verify import RULES
    from worker.ledger.verify import verify as differences

    with console.progress("comparing", len(RULES)) as advance:
        async with writing() as pool:
            return [found async for found in differences(pool, begun=lambda _rule: advance(1))]
