"""Drift as an operator sees it: where ledger and hypervisors differ, since when, and what went away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic_core import from_json

from worker.ledger.statements import bound

if TYPE_CHECKING:
    from worker.ledger.statements import Connection


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference: ``ledger`` and ``hypervisor`` are what each says. ``resolved_at`` is null while it is there."""

    id: int
    node: str
    instance: UUID | None
    kind: str
    detail: str
    ledger: object
    hypervisor: object
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class DriftFilter:
    """Which differences are meant; what is ``None`` does not matter. With ``resolved`` those that are over too."""

    node: str | None = None
    kind: str | None = None
    instance: UUID | None = None
    resolved: bool = False


async def drift(connection: Connection, which: DriftFilter, *, after: int = 0, limit: int = 1000) -> list[Drift]:
    """Differences in the order in which they were found, after one of them."""
    asked = bound(
        "show_drift",
        after=after,
        node=which.node,
        kind=which.kind,
        instance=which.instance,
        resolved=which.resolved,
        limit=limit,
    )
    found = []
    for row in await connection.fetch(*asked):
        sides = {side: None if row[side] is None else from_json(row[side]) for side in ("ledger", "hypervisor")}
        found.append(Drift(**{**row, **sides}))
    return found
