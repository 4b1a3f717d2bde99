"""``nodeledger parked``: commands that wait for their node's hypervisor."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from worker.cli.common import console
from worker.cli.common.actor import Actor, whoami
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.errors import UsageError
from worker.servers import writing

if TYPE_CHECKING:
    from worker.ledger.parked import WaitingCommand, WaitingNode

app = typer.Typer(help="List parked commands, have them tried now, or give them up.")

Nodes = Annotated[list[str] | None, typer.Argument(metavar="[NODE]...", help="The nodes.", show_default=False)]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[COMMAND]...", help="Their ids.", show_default=False)]
NodeOption = Annotated[list[str] | None, typer.Option("--node", help="Only those of this node; may be repeated.")]
Everything = Annotated[bool, typer.Option("--all", help="Those of every node.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")]

_COLUMNS: Final = "node command kind #waited_seconds:waited_s blocking:holds_others detail:why"
_NODE_COLUMNS: Final = "node #commands #waited_seconds:waited_s asked_next detail:why"


@app.command("list")
def list_(
    node: NodeOption = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="One line for each node instead of each command.")] = False,
    limit: Limit = 1000,
    as_json: console.JsonFlag = False,
) -> None:
    """List parked commands in their order, with how long they wait and why; or the nodes they wait for."""
    if nodes:
        console.print_rows(map(asdict, run(_nodes(node))), _NODE_COLUMNS, as_json=as_json)
        return
    found = run(_commands(node, limit))
    console.print_rows(map(asdict, found), _COLUMNS, as_json=as_json)
    if len(found) == limit:
        console.note(f"the first {limit}; --limit shows more, --nodes sums up")


@app.command()
def push(nodes: Nodes = None, everything: Everything = False, as_json: console.JsonFlag = False) -> None:
    """Have hypervisors asked now instead of at the end of their pause; if one answers, its commands go on.

    A worker that asked one in vain a moment ago leaves it alone for up to
    30 s more. Exit status 1 if nothing is parked for a node that was named.
    """
    if bool(nodes) == everything:
        raise UsageError("say which nodes: their names, or --all")
    pushed = run(_push(nodes))
    console.print_document({"pushed": pushed}, as_json=as_json)
    for name in nodes or ():
        if name not in pushed:
            console.note(f"{name}: nothing is parked")
    raise typer.Exit(OK if set(nodes or ()) <= set(pushed) else FINDING)


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
        raise UsageError("say which: the commands' ids, --node or --all")
    dropped = run(_drop(commands, node, actor or whoami()))
    console.print_document({"dropped": len(dropped)}, as_json=as_json)
    missed = [one for one in commands or () if one not in dropped]
    for one in missed:
        console.note(f"{one}: is not parked")
    raise typer.Exit(FINDING if missed else OK)


async def _nodes(names: list[str] | None) -> list[WaitingNode]:
    from worker.ledger.parked import waiting_nodes

    async with writing() as pool:
        return await waiting_nodes(pool, names)


async def _commands(nodes: list[str] | None, limit: int) -> list[WaitingCommand]:
    from worker.ledger.parked import waiting_commands

    async with writing() as pool:
        return await waiting_commands(pool, nodes=nodes, limit=limit)


async def _push(nodes: list[str] | None) -> list[str]:
    from worker.ledger.parked import probe_now

    async with writing() as pool:
        return await probe_now(pool, nodes)


async def _drop(commands: list[UUID] | None, nodes: list[str] | None, actor: str) -> set[UUID]:
    from worker.operations.giving_up import give_all_up

    async with writing() as pool:
        return await give_all_up(pool, nodes=nodes, commands=commands, actor=actor, progress=console.progress)
