"""What a batch changed, as the columns of each table's rows.

Each class holds some rows column by column, as arrays for ``unnest``: its fields
are the names of the parameters in SQL. Built so and not row by row, a name stands
beside its value and costs nothing for each row. Arrays within rows travel as
Postgres' array literals, since nested arrays would be flattened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from pydantic_core import to_json

from worker.accounting.state.occupancy import merged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from worker.accounting.post import Posting
    from worker.accounting.state.instances import Holding, Instance
    from worker.accounting.state.occupancy import Counters
    from worker.accounting.state.view import Node
    from worker.engine.ports import Known, OutcomeRecord

EMPTY: Final = "{}"
_Columns = TypeVar("_Columns", bound=NamedTuple)


class Checks(NamedTuple):
    """Nodes in the generations that a batch was decided on."""

    id: Sequence[int]
    generation: Sequence[int]
    stamp: Sequence[int]


class Nodes(NamedTuple):
    """Rows of ``node``."""

    id: Sequence[int | None]
    generation: Sequence[int]
    stamp: Sequence[int]
    counters: Sequence[str]
    used: Sequence[str]
    failed_builds: Sequence[int]
    parked: Sequence[int]
    reachable: Sequence[bool | None]
    observed_at: Sequence[datetime | None]


class Answers(NamedTuple):
    """Rows of ``command``; ``before`` is the status that each replaces."""

    id: Sequence[UUID]
    before: Sequence[str | None]
    fingerprint: Sequence[UUID]
    kind: Sequence[str]
    status: Sequence[str]
    node: Sequence[str]
    instance: Sequence[UUID | None]
    received_at: Sequence[datetime]
    codes: Sequence[str]
    reply_to: Sequence[str | None]
    correlation_id: Sequence[str | None]
    traceparent: Sequence[str | None]
    outcome: Sequence[str]


class Instances(NamedTuple):
    """Rows of ``instance``; ``before`` is the version that each replaces, 0 of a new one."""

    id: Sequence[UUID]
    before: Sequence[int]
    version: Sequence[int]
    project: Sequence[str | None]
    user_id: Sequence[str | None]
    revision: Sequence[int | None]
    state: Sequence[str | None]
    task: Sequence[str | None]
    os_type: Sequence[str | None]
    move: Sequence[str | None]
    stranded: Sequence[str | None]
    deleted_at: Sequence[datetime | None]
    idle_since: Sequence[datetime | None]


class Allocations(NamedTuple):
    """Rows of ``allocation``."""

    instance: Sequence[UUID]
    node_id: Sequence[int | None]
    role: Sequence[str]
    request: Sequence[str]
    full_charge: Sequence[str]
    charge: Sequence[str]
    pins: Sequence[str]
    devices: Sequence[str]
    assignment: Sequence[str]
    claimed_at: Sequence[datetime]
    lease_expires_at: Sequence[datetime | None]


class AllocationKeys(NamedTuple):
    """What rows of ``allocation`` are known by."""

    instance: Sequence[UUID]
    node_id: Sequence[int | None]
    role: Sequence[str]


class PinnedCpus(NamedTuple):
    """Rows of ``pinned_cpu``."""

    node_id: Sequence[int | None]
    cpu: Sequence[int]
    instance: Sequence[UUID]


class HeldDevices(NamedTuple):
    """Rows of ``held_device``."""

    node_id: Sequence[int | None]
    address: Sequence[str]
    instance: Sequence[UUID]


class Entries(NamedTuple):
    """Rows of ``entry``."""

    node: Sequence[str]
    instance: Sequence[UUID]
    project: Sequence[str | None]
    user_id: Sequence[str | None]
    command: Sequence[UUID]
    kind: Sequence[str]
    counters: Sequence[str]
    deltas: Sequence[str]
    used_after: Sequence[str]
    pins: Sequence[str | None]
    devices: Sequence[str | None]


def columns(kind: type[_Columns], rows: Collection[tuple[Any, ...]]) -> _Columns:
    """Short rows, in the order of the fields, as columns."""
    return kind._make(zip(*rows, strict=True) if rows else [()] * len(kind._fields))


def literal(values: Iterable[object]) -> str:
    """Postgres' literal of an array of numbers."""
    return "{" + ",".join(map(str, values)) + "}"


def names(values: Collection[str]) -> str:
    """Postgres' literal of an array of names; a mediated device's type may hold quotes and backslashes."""
    inside = '","'.join(values)
    if "\\" in inside or inside.count('"') != 2 * max(0, len(values) - 1):
        inside = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{inside}"}}' if values else EMPTY


def node_columns(nodes: Sequence[Node]) -> Nodes:
    """Nodes as they are now."""
    use = [node.occupancy.used for node in nodes]
    return Nodes(
        id=[node.id for node in nodes],
        generation=[node.generation for node in nodes],
        stamp=[node.stamp for node in nodes],
        counters=[names(used) for used in use],
        used=[literal(used.values()) for used in use],
        failed_builds=[node.failed_builds for node in nodes],
        parked=[node.parked for node in nodes],
        reachable=[node.reachable for node in nodes],
        observed_at=[node.observed_at for node in nodes],
    )


def answer_columns(known: Mapping[UUID, Known], answers: Sequence[OutcomeRecord]) -> Answers:
    """Outcomes, and what was known of their commands."""
    replies = [answer.reply for answer in answers]
    earlier = [known.get(answer.command) for answer in answers] if known else [None] * len(answers)
    return Answers(
        id=[answer.command for answer in answers],
        before=[seen.status if seen is not None else None for seen in earlier],
        fingerprint=[answer.fingerprint for answer in answers],
        kind=[answer.kind for answer in answers],
        status=[answer.status for answer in answers],
        node=[answer.node for answer in answers],
        instance=[answer.instance for answer in answers],
        received_at=[answer.received_at for answer in answers],
        codes=[names(answer.codes) if answer.codes else EMPTY for answer in answers],
        reply_to=[reply.to for reply in replies],
        correlation_id=[reply.correlation_id for reply in replies],
        traceparent=[reply.traceparent for reply in replies],
        outcome=[answer.outcome for answer in answers],
    )


def instance_columns(before: Mapping[UUID, Instance], after: Collection[Instance], at: datetime) -> Instances:
    """Instances as they are at a moment, and the versions they were in."""
    earlier = [before.get(now.id) for now in after]
    return Instances(
        id=[now.id for now in after],
        before=[was.version if was is not None else 0 for was in earlier],
        version=[now.version for now in after],
        project=[now.project for now in after],
        user_id=[now.user for now in after],
        revision=[now.revision for now in after],
        state=[now.state for now in after],
        task=[now.task for now in after],
        os_type=[now.os_type for now in after],
        move=[now.move for now in after],
        stranded=[now.stranded for now in after],
        deleted_at=[now.deleted_at for now in after],
        idle_since=[at if now.idle else None for now in after],
    )


def allocation_columns(taken: Sequence[tuple[Instance, Holding, int | None]]) -> Allocations:
    """Holdings, each with its holder and the id of its node."""
    holdings = [holding for _, holding, _ in taken]
    placements = [holding.placement for holding in holdings]
    full = [to_json(placement.charge).decode() for placement in placements]
    return Allocations(
        instance=[holder.id for holder, _, _ in taken],
        node_id=[node_id for _, _, node_id in taken],
        role=[holding.role for holding in holdings],
        request=[holding.request for holding in holdings],
        full_charge=full,
        charge=[
            alone if len(holder.holdings) == 1 else to_json(_own_charge(holder, holding)).decode()
            for (holder, holding, _), alone in zip(taken, full, strict=True)
        ],
        pins=[literal(sorted(placement.pins)) if placement.pins else EMPTY for placement in placements],
        devices=[names(placement.devices) if placement.devices else EMPTY for placement in placements],
        assignment=[to_json(placement.assignment).decode() for placement in placements],
        claimed_at=[holding.claimed_at for holding in holdings],
        lease_expires_at=[holding.lease_expires_at for holding in holdings],
    )


def _own_charge(holder: Instance, holding: Holding) -> Counters:
    """What a holding adds to its node: of a destination beside its source, what exceeds the source."""
    source = holder.with_role("move_source")
    if holding.role != "move_destination" or source is None or source.node != holding.node:
        return holding.placement.charge
    base = source.placement.charge
    total = merged([source.placement, holding.placement])
    return {name: amount - base.get(name, 0) for name, amount in total.items() if amount > base.get(name, 0)}


def entry_columns(postings: Sequence[tuple[UUID, str, Posting]]) -> Entries:
    """Postings, each with the id and the kind of its command."""
    posted = [posting for _, _, posting in postings]
    holders = [posting.instance for posting in posted]
    return Entries(
        node=[posting.node for posting in posted],
        instance=[holder.id for holder in holders],
        project=[holder.project for holder in holders],
        user_id=[holder.user for holder in holders],
        command=[command for command, _, _ in postings],
        kind=[kind for _, kind, _ in postings],
        counters=[names(posting.deltas) for posting in posted],
        deltas=[literal(posting.deltas.values()) for posting in posted],
        used_after=[literal(posting.used_after.values()) for posting in posted],
        pins=[literal(sorted(posting.pins)) if posting.pins else None for posting in posted],
        devices=[names(sorted(posting.devices)) if posting.devices else None for posting in posted],
    )
