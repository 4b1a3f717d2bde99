"""What looks and audits leave on record: what is known to differ on a node, and how busy it is."""

from __future__ import annotations

from dataclasses import astuple
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
    from worker.accounting.state.load import Load
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


class Loads(NamedTuple):
    """Rows of ``host_load``."""

    node_id: Sequence[int | None]
    user_percent: Sequence[int | None]
    kernel_percent: Sequence[int | None]
    iowait_percent: Sequence[int | None]
    idle_percent: Sequence[int | None]
    memory_used_mib: Sequence[int | None]


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


async def record_load(
    connection: Connection, loads: Mapping[str, Load], nodes: Mapping[str, Node], now: datetime
) -> None:
    """Write how busy nodes are; those that are gone meanwhile are left out."""
    rows = [(nodes[name].id, *astuple(load)) for name, load in loads.items() if name in nodes]
    await connection.execute(*bound("record_load", loads=columns(Loads, rows), now=now))


def _difference(row: asyncpg.Record) -> Difference:
    fields = dict(row)
    for side in ("ledger", "hypervisor"):
        fields[side] = None if fields[side] is None else from_json(fields[side])
    return Difference(**fields)


def _text(value: object) -> str | None:
    return None if value is None else to_json(value).decode()
