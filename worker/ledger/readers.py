"""What the ledger says now, for the command line and the read API.

Everything is read through views, so a connection of the read-only role will do.
Amounts are integers; the unit is in the resource's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from pydantic_core import from_json

from schemas import Inventory, Policy
from worker.accounting.host.compiled import build_host
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.survey import DevicePool, Stray, pools, strays
from worker.ledger.statements import Connection, bound, statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import asyncpg

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """One resource: ``free`` is negative where the capacity shrank below the use."""

    total: int
    reserved: int
    capacity: int
    used: int
    free: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node at a glance. ``reachable`` is ``None`` where no hypervisor was asked yet."""

    node: str
    hypervisor: str | None
    enabled: bool
    reachable: bool | None
    generation: int
    observed_at: datetime | None
    instances: int
    failed_builds: int
    labels: Mapping[str, str]
    usage: Mapping[str, ResourceUsage]


@dataclass(frozen=True, slots=True)
class HeldAllocation:
    """What one instance is charged on one node in one role."""

    instance: UUID
    node: str
    role: str
    project: str | None
    user_id: str | None
    vcpus: int
    pcpus: int
    memory_mib: int
    disk_mib: int
    custom: Mapping[str, int]
    assignment: Mapping[str, object]
    claimed_at: datetime
    lease_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class PinnedCpu:
    """A host CPU that belongs to one instance alone."""

    cpu: int
    instance: UUID


@dataclass(frozen=True, slots=True)
class NodeDevice:
    """A device. ``state`` is ``available``, ``held``, ``shared``, ``hidden`` or ``gone``."""

    address: str
    vendor: str | None
    product: str | None
    type: str | None
    cell: int | None
    parent: str | None
    state: str
    instance: UUID | None


@dataclass(frozen=True, slots=True)
class Statistic:
    """How many instances of a node share a property's value."""

    property: str
    value: str | None
    amount: int


@dataclass(frozen=True, slots=True)
class NodeDetail:
    """Everything known of a node.

    ``counters`` are all that are kept, those of cells and of device types
    included; ``pools`` are the devices it hands out, ``strays`` is what is held
    though the node no longer offers it. ``host_uuid`` is that of the machine. Its history from before
    it was renamed is under its ``former_names``.
    """

    node: Node
    policy: Mapping[str, object]
    inventory: Mapping[str, object] | None
    counters: Mapping[str, int]
    parked: int
    allocations: Sequence[HeldAllocation]
    pinned_cpus: Sequence[PinnedCpu]
    devices: Sequence[NodeDevice]
    pools: Sequence[DevicePool]
    strays: Sequence[Stray]
    statistics: Sequence[Statistic]
    host_uuid: UUID | None
    former_names: Sequence[str]


@dataclass(frozen=True, slots=True)
class InstanceDetail:
    """An instance and what it holds. ``move`` names its open move; ``deleted_at`` marks a tombstone."""

    instance: UUID
    project: str | None
    user_id: str | None
    state: str | None
    task: str | None
    os_type: str | None
    revision: int | None
    move: str | None
    deleted_at: datetime | None
    allocations: Sequence[HeldAllocation]


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """What one user of a project is charged of one resource."""

    project: str
    user_id: str | None
    resource: str
    used: int


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """The stored answer to a command."""

    command: UUID
    kind: str
    status: str
    node: str
    instance: UUID | None
    received_at: datetime
    at: datetime
    codes: Sequence[str]
    outcome: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ParkedCommand:
    """A command that waits for its node's hypervisor."""

    seq: int
    node: str
    command: UUID
    received_at: datetime
    parked_at: datetime
    size_bytes: int


async def nodes(
    connection: Connection, *, names: Sequence[str] | None = None, after: str = "", limit: int = 1000
) -> list[Node]:
    """At most ``limit`` nodes whose name sorts after ``after``, in the order of their names."""
    return [_node(row) for row in await connection.fetch(statement("show_nodes"), after, names, limit)]


async def node(connection: Connection, name: str) -> NodeDetail | None:
    """Everything about one node; ``None`` if there is none of that name."""
    found = await nodes(connection, names=[name])
    detail = await connection.fetchrow(statement("show_node"), name)
    if not found or detail is None:
        return None
    pinned = await _rows(connection, PinnedCpu, statement("show_pinned_cpus"), name)
    devices = await _rows(connection, NodeDevice, statement("show_devices"), name)
    counters = from_json(detail["counters"])
    occupancy = Occupancy(
        counters,
        {one.cpu: one.instance for one in pinned},
        {one.address: one.instance for one in devices if one.instance is not None},
    )
    offered, astray = _survey(detail, occupancy, observed=found[0].hypervisor is not None)
    return NodeDetail(
        node=found[0],
        policy=from_json(detail["policy"]),
        inventory=_json(detail["inventory"]),
        counters=counters,
        parked=detail["parked"],
        allocations=await allocations(connection, node=name),
        pinned_cpus=pinned,
        devices=devices,
        pools=offered,
        strays=astray,
        statistics=await _rows(connection, Statistic, statement("show_statistics"), name),
        host_uuid=detail["host_uuid"],
        former_names=detail["former_names"],
    )


def _survey(detail: asyncpg.Record, occupancy: Occupancy, *, observed: bool) -> tuple[list[DevicePool], list[Stray]]:
    if detail["inventory"] is None:
        return [], []
    inventory = Inventory.model_validate_json(detail["inventory"])
    host = build_host(inventory, Policy.model_validate_json(detail["policy"]), observed=observed)
    return pools(host, occupancy), strays(host, occupancy)


async def allocations(
    connection: Connection, *, node: str | None = None, instance: UUID | None = None
) -> list[HeldAllocation]:
    """What is held on a node, or by an instance."""
    return await _rows(connection, HeldAllocation, statement("show_allocations"), node, instance)


async def instance(connection: Connection, identity: UUID) -> InstanceDetail | None:
    """One instance, deleted or not; ``None`` if it was never claimed or is forgotten."""
    row = await connection.fetchrow(statement("show_instance"), identity)
    if row is None:
        return None
    return InstanceDetail(**row, allocations=await allocations(connection, instance=identity))


async def fleet_usage(connection: Connection) -> dict[str, ResourceUsage]:
    """Every resource summed over all nodes."""
    rows = await connection.fetch(statement("show_fleet_usage"))
    found = [dict(row) for row in rows]
    return {amounts.pop("resource"): ResourceUsage(**amounts) for amounts in found}


async def project_usage(connection: Connection, project: str | None = None) -> list[ProjectUsage]:
    """What projects are charged by user and resource."""
    return await _rows(connection, ProjectUsage, statement("show_project_usage"), project)


async def outcomes(
    connection: Connection,
    *,
    command: UUID | None = None,
    node: str | None = None,
    instance: UUID | None = None,
    status: str | None = None,
    limit: int = 100,
) -> list[StoredOutcome]:
    """Stored outcomes, the newest first. Only a command's own is found by an index; the rest reads back in time."""
    found = bound("show_outcomes", command=command, node=node, instance=instance, status=status, limit=limit)
    return await _rows(connection, StoredOutcome, *found)


async def outcome(connection: Connection, command: UUID) -> StoredOutcome | None:
    """The stored outcome of one command."""
    found = await outcomes(connection, command=command, limit=1)
    return found[0] if found else None


async def statuses(connection: Connection, commands: Sequence[UUID]) -> dict[UUID, tuple[UUID, str]]:
    """What the ledger has of commands: the content their ids stand for, and how far they have come."""
    rows = await connection.fetch(statement("show_statuses"), commands)
    return {row["id"]: (row["fingerprint"], row["status"]) for row in rows}


async def parked(
    connection: Connection, *, node: str | None = None, after: int = 0, limit: int = 1000
) -> list[ParkedCommand]:
    """Commands that wait for a hypervisor, in their order."""
    return await _rows(connection, ParkedCommand, statement("show_parked"), after, node, limit)


_DOCUMENTS = frozenset({"custom", "assignment", "outcome"})


async def _rows(connection: Connection, kind: type[_Row], query: str, *arguments: object) -> list[_Row]:
    """A statement's rows as dataclasses whose fields are named as its columns."""
    rows = await connection.fetch(query, *arguments)
    return [
        kind(**{name: _json(value) if name in _DOCUMENTS else value for name, value in row.items()}) for row in rows
    ]


def _node(row: asyncpg.Record) -> Node:
    values = dict(row)
    usage, labels = from_json(values.pop("usage")), from_json(values.pop("labels"))
    resources = {resource: ResourceUsage(**amounts) for resource, amounts in usage.items()}
    return Node(**values, labels=labels, usage=resources)


def _json(text: str | None) -> Any:
    return None if text is None else from_json(text)
