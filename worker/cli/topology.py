"""``nodeledger topology``: the broker's exchanges and queues."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from worker.cli import reshard
from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.servers import broker

if TYPE_CHECKING:
    from worker.broker.topology import Finding

app = typer.Typer(help="Declare, check or reshard the broker's exchanges and queues.")
app.command("reshard")(reshard.reshard)


@app.command()
def apply(as_json: console.JsonFlag = False) -> None:
    """Declare and bind everything; twice is as good as once."""
    _conclude(run(_look(declare=True)), "exchanges and queues are in place", as_json=as_json)


@app.command()
def check(as_json: console.JsonFlag = False) -> None:
    """Look, without changing anything, whether everything is there; exit status 1 if not."""
    _conclude(run(_look(declare=False)), "exchanges and queues are as they should be", as_json=as_json)


async def _look(*, declare: bool) -> list[Finding]:
    from worker.broker import topology
    from worker.cli.send import shards

    async with broker() as link:
        return await (topology.apply if declare else topology.check)(link, await shards())


def _conclude(findings: list[Finding], good: str, *, as_json: bool) -> None:
    if as_json:
        console.print_document({"ok": not findings, "findings": [asdict(found) for found in findings]}, as_json=True)
    else:
        for line in map(str, findings):
            console.print_line(console.escaped(line))
        if not findings:
            console.print_line(good)
    raise typer.Exit(FINDING if findings else OK)
