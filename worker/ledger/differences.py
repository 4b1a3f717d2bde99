"""Drift on record: what is known to differ on a node, and what an audit makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json

from worker.accounting.rules.drift import Difference
from worker.ledger.rows import columns
from worker.ledger.statements import bound, statement

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    import asyncpg

    from worker.accounting.rules.drift import DriftChange
    from worker.accounting.state.view import Node
    from worker.ledger.statements import Connection


class Begun(NamedTuple):
    """New rows of ``drift``."""

    node_id: Sequence[int | None]
    instance: Sequence[UUID | None]
    kind: Sequence[str]
    detail: Sequence[str]
    ledger: Sequence[str | None]
    hypervisor: Sequence[str | None]


class Kept(NamedTuple):
    """Rows of ``drift`` that are seen once more."""

    id: Sequence[int]
    detail: Sequence[str]
    ledger: Sequence[str | None]
    hypervisor: Sequence[str | None]


async def load_drift(connection: Connection, nodes: Collection[str]) -> dict[str, list[Difference]]:
    """What is known to differ on nodes."""
    found: dict[str, list[Difference]] = {name: [] for name in nodes}
    for row in await connection.fetch(statement("load_drift"), list(nodes)):
        found[row["node"]].append(_difference(row))
    return found


async def record_drift(connection: Connection, change: DriftChange, nodes: Mapping[str, Node], now: datetime) -> None:
    """Write what began to differ, what still does and what is over."""
    begun = [
        (nodes[one.node].id, one.instance, one.kind, one.detail, _text(one.ledger), _text(one.hypervisor))
        for one in change.begun
    ]
    kept = [(one.id, one.detail, _text(one.ledger), _text(one.hypervisor)) for one in change.kept]
    recorded = bound(
        "record_drift",
        begun=columns(Begun, begun),
        kept=columns(Kept, kept),
        ended=[one.id for one in change.ended],
        now=now,
    )
    await connection.execute(*recorded)


def _difference(row: asyncpg.Record) -> Difference:
    fields = dict(row)
    for side in ("ledger", "hypervisor"):
        fields[side] = None if fields[side] is None else from_json(fields[side])
    return Difference(**fields)


def _text(value: object) -> str | None:
    return None if value is None else to_json(value).decode()
