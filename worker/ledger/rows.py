"""What a batch changed, as rows of each table.

Rows go to Postgres column by column, as arrays for ``unnest``. Arrays within
rows travel as Postgres' array literals, since nested arrays would be flattened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

from worker.accounting.state.occupancy import merged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from uuid import UUID

    from worker.accounting.post import Posting
    from worker.accounting.state.instances import Holding, Instance
    from worker.accounting.state.occupancy import Counters
    from worker.accounting.state.view import Node
    from worker.engine.ports import Known, OutcomeRecord

Row = tuple[object, ...]
EMPTY: Final = "{}"


def columns(rows: Sequence[Row], width: int) -> list[Sequence[object]]:
    """Turn rows into columns; no rows give empty columns."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def literal(values: Iterable[object]) -> str:
    """Postgres' literal of an array of numbers."""
    return "{" + ",".join(map(str, values)) + "}"


def names(values: Collection[str]) -> str:
    """Postgres' literal of an array of names; a mediated device's type may hold quotes and backslashes."""
    inside = '","'.join(values)
    if "\\" in inside or inside.count('"') != 2 * max(0, len(values) - 1):
        inside = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{inside}"}}' if values else EMPTY


def answer_row(known: Known | None, answer: OutcomeRecord) -> Row:
    """A row of ``command``, with the status that it replaces."""
    return (
        answer.command,
        known.status if known is not None else None,
        answer.fingerprint,
        answer.kind,
        answer.status,
        answer.node,
        answer.instance,
        answer.received_at,
        names(answer.codes) if answer.codes else EMPTY,
        answer.reply.to,
        answer.reply.correlation_id,
        answer.reply.traceparent,
        answer.outcome,
    )


def instance_row(before: Instance | None, after: Instance) -> Row:
    """A row of ``instance``, with the version that it replaces."""
    return (
        after.id,
        before.version if before is not None else 0,
        after.version,
        after.project,
        after.user,
        after.revision,
        after.state,
        after.task,
        after.os_type,
        after.move,
        after.stranded,
        after.deleted_at,
    )


def allocation_row(holder: Instance, holding: Holding, node_id: int | None) -> Row:
    """A row of ``allocation``."""
    placement = holding.placement
    full = to_json(placement.charge).decode()
    return (
        holder.id,
        node_id,
        holding.role,
        holding.request,
        full,
        full if len(holder.holdings) == 1 else to_json(_own_charge(holder, holding)).decode(),
        literal(sorted(placement.pins)) if placement.pins else EMPTY,
        names(placement.devices) if placement.devices else EMPTY,
        to_json(placement.assignment).decode(),
        holding.claimed_at,
        holding.lease_expires_at,
    )


def _own_charge(holder: Instance, holding: Holding) -> Counters:
    """What a holding adds to its node: of a destination beside its source, what exceeds the source."""
    source = holder.with_role("move_source")
    if holding.role != "move_destination" or source is None or source.node != holding.node:
        return holding.placement.charge
    base = source.placement.charge
    total = merged([source.placement, holding.placement])
    return {name: amount - base.get(name, 0) for name, amount in total.items() if amount > base.get(name, 0)}


def entry_row(command: UUID, kind: str, posting: Posting) -> Row:
    """A row of ``entry``."""
    holder = posting.instance
    return (
        posting.node,
        holder.id,
        holder.project,
        holder.user,
        command,
        kind,
        names(posting.deltas),
        literal(posting.deltas.values()),
        literal(posting.used_after.values()),
        literal(sorted(posting.pins)) if posting.pins else None,
        names(sorted(posting.devices)) if posting.devices else None,
    )


def node_row(node: Node) -> Row:
    """A row of ``node``."""
    used = node.occupancy.used
    return (
        node.id,
        node.generation,
        names(used),
        literal(used.values()),
        node.failed_builds,
        node.parked,
        node.reachable,
        node.observed_at,
    )
