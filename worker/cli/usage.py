"""``nodeledger usage``: what is used, by resource, node or project, now or over a period."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer

from worker.cli.common import console
from worker.cli.common.moments import Moment
from worker.cli.common.running import run
from worker.errors import OperationError, UsageError
from worker.servers import reading

_HOUR_SECONDS = 3600
# Of hours, for people: whoever bills reckons with the exact seconds.
_HOUR_DIGITS = 3


def usage(
    node: Annotated[str | None, typer.Option(help="Only this node.")] = None,
    project: Annotated[str | None, typer.Option(help="What this project is charged.")] = None,
    projects: Annotated[bool, typer.Option("--projects", help="What every project is charged.")] = False,
    since: Annotated[datetime | None, Moment("With --project: amount-hours charged from then on.")] = None,
    until: Annotated[datetime | None, Moment("With --since: the end of the period; now if unset.")] = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Show what is used of every resource: of all nodes together, of one, or by project."""
    if since is not None and project is not None:
        rows = run(_hours(project, since, until or datetime.now(UTC)))
        console.print_rows(rows, "project resource #amount_seconds #amount_hours", as_json=as_json)
    elif since is not None or until is not None:
        raise UsageError("--since and --until ask for the hours of a --project")
    elif project is not None or projects:
        console.print_rows(run(_by_project(project)), "project user_id:user resource #used", as_json=as_json)
    else:
        columns = "resource #total #reserved #capacity #used #free"
        console.print_rows(run(_by_resource(node)), columns, as_json=as_json)


async def _by_resource(name: str | None) -> list[dict[str, object]]:
    from worker.ledger import readers

    async with reading() as pool, pool.acquire() as connection:
        if name is None:
            usage = await readers.fleet_usage(connection)
        elif found := await readers.nodes(connection, names=[name]):
            usage = dict(found[0].usage)
        else:
            raise OperationError(f"there is no node {name!r}: `nodeledger node list` shows those there are")
    return [{"resource": resource, **asdict(amounts)} for resource, amounts in usage.items()]


async def _by_project(project: str | None) -> list[dict[str, object]]:
    from worker.ledger import readers

    async with reading() as pool, pool.acquire() as connection:
        return [asdict(row) for row in await readers.project_usage(connection, project)]


async def _hours(project: str, since: datetime, until: datetime) -> list[dict[str, object]]:
    from worker.ledger.history import use_over_time

    async with reading() as pool, pool.acquire() as connection:
        found = await use_over_time(connection, project, since, until)
    return [
        {
            "project": project,
            "resource": resource,
            "amount_seconds": seconds,
            "amount_hours": round(seconds / Decimal(_HOUR_SECONDS), _HOUR_DIGITS),
        }
        for resource, seconds in found.items()
    ]
