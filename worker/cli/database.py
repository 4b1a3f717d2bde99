"""``nodeledger db``: the schema of the database."""

from __future__ import annotations

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.printable import escaped
from worker.servers import owning

app = typer.Typer(help="Apply or check the database's schema.")


@app.command()
def upgrade(as_json: console.JsonFlag = False) -> None:
    """Apply the migrations that are missing; twice is as good as once."""
    applied = run(_upgrade())
    if as_json:
        console.print_document({"applied": applied}, as_json=True)
        return
    for name in applied:
        console.print_line(f"applied {name}")
    if not applied:
        console.print_line("the schema is up to date")


@app.command()
def check(as_json: console.JsonFlag = False) -> None:
    """Compare the database with the migrations, the roles and the grants; exit status 1 on any difference."""
    problems = run(_check())
    if as_json:
        console.print_document({"ok": not problems, "problems": problems}, as_json=True)
    else:
        for problem in problems or ["the schema is as it should be"]:
            console.print_line(escaped(problem))
    raise typer.Exit(FINDING if problems else OK)


async def _upgrade() -> list[str]:
    from worker.ledger import migrate

    async with owning() as connection:
        return await migrate.upgrade(connection)


async def _check() -> list[str]:
    from worker.ledger import migrate

    async with owning() as connection:
        return await migrate.check(connection)
