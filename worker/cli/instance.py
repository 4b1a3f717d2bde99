"""``nodeledger instance``: one instance and what it holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from worker.cli.common import console
from worker.cli.common.running import run
from worker.cli.node import HELD_COLUMNS
from worker.errors import OperationError
from worker.servers import reading

if TYPE_CHECKING:
    from worker.ledger.readers import InstanceDetail

app = typer.Typer(help="Show an instance.")


@app.callback()
def _group() -> None:
    """Show an instance."""


@app.command()
def show(
    id: Annotated[UUID, typer.Argument(metavar="ID", help="The instance's UUID.")],
    as_json: console.JsonFlag = False,
) -> None:
    """Show an instance: its state, its open move, and what it holds on which node."""
    found = run(_instance(id))
    if found is None:
        raise OperationError(f"there is no instance {id}: it was never claimed, or is forgotten")
    shown = asdict(found)
    if as_json:
        console.print_document(shown, as_json=True)
        return
    held = shown.pop("allocations")
    console.print_document(shown, as_json=False)
    if held:
        console.print_line("\nholds:")
        console.print_rows(held, f"node {HELD_COLUMNS.removeprefix('instance ')}", as_json=False)
        console.print_line("\nassignment:")
        for part in held:
            console.print_document({f"{part['node']} ({part['role']})": part["assignment"]}, as_json=False)


async def _instance(identity: UUID) -> InstanceDetail | None:
    from worker.ledger import readers

    async with reading() as pool, pool.acquire() as connection:
        return await readers.instance(connection, identity)
