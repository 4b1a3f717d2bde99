"""What the ledger said in the past: its lines, a node's state at a moment, and use over time.

Entries older than their retention are carried forward into one line for each
instance and node, of kind ``carried``: sums stay right, and moments before it
can no longer be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic_core import from_json

from worker.ledger.statements import Connection, bound, statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import asyncpg


@dataclass(frozen=True, slots=True)
class Change:
    """How one counter of a node changed, and what it was afterwards."""

    delta: int
    used_after: int


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of the ledger. ``pins`` and ``devices`` are those the instance held on the node after it."""

    seq: int
    at: datetime
    node: str
    instance: UUID
    project: str | None
    user_id: str | None
    command: UUID
    kind: str
    changes: Mapping[str, Change]
    pins: Sequence[int]
    devices: Sequence[str]


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which lines are meant; what is ``None`` does not matter. ``since`` is included, ``until`` is not."""

    node: str | None = None
    instance: UUID | None = None
    project: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class PastHolding:
    """What an instance was charged on a node and held there."""

    charge: Mapping[str, int]
    pins: Sequence[int]
    devices: Sequence[str]


@dataclass(frozen=True, slots=True)
class PastNode:
    """A node at a moment, rebuilt from the ledger alone. Counters at zero are left out."""

    node: str
    at: datetime
    used: Mapping[str, int]
    holdings: Mapping[UUID, PastHolding]


async def history(
    connection: Connection, which: HistoryFilter, *, before: int | None = None, limit: int = 100
) -> list[HistoryLine]:
    """At most ``limit`` lines, the newest first; ``before`` is the ``seq`` of the last one of the page before."""
    page = bound(
        "history",
        before=before,
        node=which.node,
        instance=which.instance,
        project=which.project,
        since=which.since,
        until=which.until,
        limit=limit,
    )
    rows = await connection.fetch(*page)
    return [_line(row) for row in rows]


async def node_at(connection: Connection, node: str, at: datetime) -> PastNode | None:
    """A node's use and who held what at a moment; ``None`` if there was no such node, as far as is known."""
    rows = await connection.fetch(statement("history_of_node_until"), node, at)
    if not rows and not await connection.fetchval(statement("history_begun"), node, at):
        return None
    holdings = {row["instance"]: PastHolding(from_json(row["charge"]), row["pins"], row["devices"]) for row in rows}
    used: dict[str, int] = {}
    for holding in holdings.values():
        for counter, amount in holding.charge.items():
            used[counter] = used.get(counter, 0) + amount
    return PastNode(node, at, used, holdings)


async def use_over_time(
    connection: Connection, project: str, since: datetime, until: datetime, *, user: str | None = None
) -> dict[str, Decimal]:
    """What a project was charged from ``since`` to ``until``: resource to amount times seconds, exactly.

    Divide by 3600 for vCPU-hours or MiB-hours. During a move both sides count,
    as both are held.
    """
    rows = await connection.fetch(*bound("history_integral", project=project, since=since, until=until, user=user))
    return {row["resource"]: row["amount_seconds"] for row in rows}


def _line(row: asyncpg.Record) -> HistoryLine:
    values = dict(row)
    counters, deltas, used_after = (values.pop(name) for name in ("counters", "deltas", "used_after"))
    changes = dict(zip(counters, map(Change, deltas, used_after), strict=True))
    return HistoryLine(**values, changes=changes)
