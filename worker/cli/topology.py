"""``nodeledger topology``: the broker's exchanges and queues."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.routing import MAX_SHARDS
from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.printable import escaped
from worker.servers import broker

if TYPE_CHECKING:
    from worker.broker.topology import Finding

app = typer.Typer(help="Declare, check or reshard the broker's exchanges and queues.")


@app.command()
def apply(as_json: console.JsonFlag = False) -> None:
    """Declare and bind everything; twice is as good as once."""
    _conclude(run(_look(declare=True)), "exchanges and queues are in place", as_json=as_json)


@app.command()
def check(as_json: console.JsonFlag = False) -> None:
    """Look, without changing anything, whether everything is there; exit status 1 if not."""
    _conclude(run(_look(declare=False)), "exchanges and queues are as they should be", as_json=as_json)


@app.command()
def reshard(
    shards: Annotated[int, typer.Argument(min=1, max=MAX_SHARDS, help="How many there are to be.", show_default=False)],
    as_json: console.JsonFlag = False,
) -> None:
    """Change the number of shards, while no worker runs; their queues may hold any number of messages.

    Stop the workers first, run this, then start them with NODELEDGER_SHARDS
    set to the new number, and give it to the producers. If it is interrupted,
    run it again. Exit status 1, and nothing changed, if a worker is still there.
    """
    from worker.operations import resharding

    done = run(resharding.reshard(shards, progress=console.progress, note=console.note))
    console.print_document(
        {
            "before": done.before,
            "shards": shards,
            "gathered": done.gathered,
            "shared_out": done.shared_out,
            "closed_seconds": round(done.closed_seconds, 3),
        },
        as_json=as_json,
    )
    console.note(f"start the workers with NODELEDGER_SHARDS={shards}, and give the number to the producers")


async def _look(*, declare: bool) -> list[Finding]:
    from worker.broker import topology
    from worker.operations.shards import shards

    async with broker() as link:
        return await (topology.apply if declare else topology.check)(link, await shards())


def _conclude(findings: list[Finding], good: str, *, as_json: bool) -> None:
    if as_json:
        console.print_document({"ok": not findings, "findings": [asdict(found) for found in findings]}, as_json=True)
    else:
        for line in map(str, findings):
            console.print_line(escaped(line))
        if not findings:
            console.print_line(good)
    raise typer.Exit(FINDING if findings else OK)
