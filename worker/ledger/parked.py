"""Parked commands as an operator sees them: what waits, since when, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from worker.ledger.statements import bound, statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from worker.ledger.statements import Connection


@dataclass(frozen=True, slots=True)
class WaitingCommand:
    """A parked command; with ``blocking`` those behind it on its node wait too."""

    seq: int
    node: str
    command: UUID
    kind: str | None
    blocking: bool
    detail: str
    received_at: datetime
    parked_at: datetime
    waited_seconds: int


@dataclass(frozen=True, slots=True)
class WaitingNode:
    """A node with parked commands: how many, since when, when its hypervisor is asked next, and why the first waits."""

    node: str
    commands: int
    since: datetime
    waited_seconds: int
    asked_next: datetime | None
    detail: str


async def waiting_commands(
    connection: Connection | asyncpg.Pool,
    *,
    nodes: Sequence[str] | None = None,
    commands: Sequence[UUID] | None = None,
    after: int = 0,
    limit: int | None = None,
) -> list[WaitingCommand]:
    """Parked commands in their order, those of these nodes and ids; ``after`` is the ``seq`` of the page before."""
    asked = bound("waiting_commands", after=after, nodes=nodes, commands=commands, limit=limit)
    return [WaitingCommand(**row) for row in await connection.fetch(*asked)]


async def waiting_nodes(connection: Connection | asyncpg.Pool, nodes: Sequence[str] | None = None) -> list[WaitingNode]:
    """Nodes with parked commands, by name."""
    return [WaitingNode(**row) for row in await connection.fetch(statement("waiting_nodes"), nodes)]


async def probe_now(connection: Connection | asyncpg.Pool, nodes: Sequence[str] | None) -> list[str]:
    """Have the hypervisors of nodes with parked commands asked at once, of all or of these; which they are."""
    return sorted(row["node"] for row in await connection.fetch(statement("probe_now"), nodes))


async def repair(connection: Connection | asyncpg.Pool, nodes: Sequence[str] | None = None) -> int:
    """Put right what contradicts itself about parked commands, of these nodes or of all; on how many it was something.

    An earlier version could leave that behind: a command that was said to be
    answered while its row waits, or a node that counts its parked commands wrong.
    """
    repaired: int = await connection.fetchval(statement("repair_parked"), nodes)
    return repaired
