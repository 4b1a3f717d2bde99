"""``nodeledger doctor``: look at every server and setting, and say what to fix."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run

if TYPE_CHECKING:
    from worker.operations.checks import Diagnosis


def doctor(
    hypervisors: Annotated[bool, typer.Option(help="Ask every node's hypervisor too.")] = True,
    as_json: console.JsonFlag = False,
) -> None:
    """Check the settings, the broker, the database and the hypervisors; exit status 1 if anything is bad."""
    found = run(_examine(hypervisors=hypervisors))
    console.print_rows(map(asdict, found), "health subject found remedy", as_json=as_json)
    raise typer.Exit(FINDING if any(one.health == "bad" for one in found) else OK)


async def _examine(*, hypervisors: bool) -> list[Diagnosis]:
    from worker.operations.checks import examine

    found = []
    with console.progress("looking") as advance:
        async for diagnosis in examine(hypervisors=hypervisors):
            found.append(diagnosis)
            advance(1)
    return found
