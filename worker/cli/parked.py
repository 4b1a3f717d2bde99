"""``nodeledger parked``: commands that wait for their node's hypervisor."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import typer

from worker.cli.common import console
from worker.cli.common.actor import Actor, whoami
from worker.cli.common.connect import run, writing
from worker.cli.common.faults import FINDING, OK, USAGE, CommandError

app = typer.Typer(help="List parked commands, have them tried now, or give them up.")

Nodes = Annotated[list[str] | None, typer.Argument(metavar="[NODE]...", help="The nodes.", show_default=False)]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[COMMAND]...", help="Their ids.", show_default=False)]
NodeOption = Annotated[list[str] | None, typer.Option("--node", help="Only those of this node; may be repeated.")]
Everything = Annotated[bool, typer.Option("--all", help="Those of every node.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")]

_COLUMNS: Final = "node command kind #waited_seconds:waited_s blocking:holds_others detail:why"
_NODE_COLUMNS: Final = "node #commands #waited_seconds:waited_s asked_next detail:why"
_TOGETHER: Final = 200


@app.command("list")
def list_(
    node: NodeOption = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="One line for each node instead of each command.")] = False,
    limit: Limit = 1000,
    as_json: console.JsonFlag = False,
) -> None:
    """List parked commands in their order, with how long they wait and why; or the nodes they wait for."""
    if nodes:
        console.print_rows(run(_fetch("waiting_nodes", node)), _NODE_COLUMNS, as_json=as_json)
        return
    found = run(_waiting(node, limit))
    console.print_rows(found, _COLUMNS, as_json=as_json)
    if len(found) == limit:
        console.note(f"the first {limit}; --limit shows more, --nodes sums up")


@app.command()
def push(nodes: Nodes = None, everything: Everything = False, as_json: console.JsonFlag = False) -> None:
    """Have hypervisors asked now instead of at the end of their pause; if one answers, its commands go on.

    A worker that asked one in vain a moment ago leaves it alone for up to
    30 s more. Exit status 1 if nothing is parked for a node that was named.
    """
    if bool(nodes) == everything:
        raise CommandError("say which nodes: their names, or --all", USAGE)
    pushed = {str(row["node"]) for row in run(_fetch("probe_now", nodes))}
    console.print_document({"pushed": sorted(pushed)}, as_json=as_json)
    for name in nodes or ():
        if name not in pushed:
            console.note(f"{name}: nothing is parked")
    raise typer.Exit(OK if pushed >= set(nodes or ()) else FINDING)


@app.command()
def drop(
    commands: Ids = None,
    node: NodeOption = None,
    everything: Everything = False,
    actor: Actor = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Give parked commands up: each goes to the dead letters, from where a replay can still apply it.

    Their senders are told that they are dead. Exit status 1 if one that was
    named is not parked (any more).
    """
    if not (commands or node or everything):
        raise CommandError("say which: the commands' ids, --node or --all", USAGE)
    dropped = run(_drop(commands, node, actor or whoami()))
    console.print_document({"dropped": len(dropped)}, as_json=as_json)
    missed = [one for one in commands or () if one not in dropped]
    for one in missed:
        console.note(f"{one}: is not parked")
    raise typer.Exit(FINDING if missed else OK)


async def _fetch(name: str, *arguments: Any) -> list[dict[str, object]]:
    from worker.ledger.statements import statement

    async with writing() as pool:
        return [dict(row) for row in await pool.fetch(statement(name), *arguments)]


async def _waiting(nodes: list[str] | None, limit: int) -> list[dict[str, object]]:
    from worker.ledger.statements import bound

    async with writing() as pool:
        rows = await pool.fetch(*bound("waiting_commands", after=0, nodes=nodes, commands=None, limit=limit))
        return [dict(row) for row in rows]


async def _drop(commands: list[UUID] | None, nodes: list[str] | None, actor: str) -> set[UUID]:
    """Drop those that are parked now, in their order, so that a replay has them in it too."""
    from worker.ledger.statements import bound
    from worker.operations.giving_up import give_up

    dropped: set[UUID] = set()
    async with writing() as pool:
        rows = await pool.fetch(*bound("waiting_commands", after=0, nodes=nodes, commands=commands, limit=None))
        ids = [row["command"] for row in rows]
        with console.progress("dropping", len(ids)) as advance:
            for start in range(0, len(ids), _TOGETHER):
                part = ids[start : start + _TOGETHER]
                dropped.update(await give_up(pool, part, actor))
                advance(len(part))
    return dropped
