"""The transaction of a batch: load under lock, decide elsewhere, write what changed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import asyncpg
from pydantic_core import from_json

from worker.accounting.instances import Holding, Instance
from worker.accounting.state import Placement
from worker.accounting.view import View
from worker.engine.ports import Known, LedgerRaced, LedgerUnavailable, Loaded
from worker.ledger.errors import is_duplicate_race, is_transient
from worker.ledger.nodes import NodeCache, load_nodes, write_profiles
from worker.ledger.rows import (
    Row,
    allocation_row,
    answer_row,
    columns,
    entry_row,
    instance_row,
    node_row,
)
from worker.ledger.statements import statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from worker.accounting.view import Node
    from worker.engine.ports import Changes, Parked, Wanted
    from worker.ledger.statements import Connection

_NodeMark: TypeAlias = tuple[int | None, int, int, bool | None, datetime | None]


@asynccontextmanager
async def transaction(pool: asyncpg.Pool, cache: NodeCache) -> AsyncIterator[StoreTransaction]:
    """One transaction. What it changed is remembered once it is committed.

    Raises:
        LedgerUnavailable: the database is away; whether it committed is not known.
        LedgerRaced: another worker made the same rows.
    """
    try:
        async with pool.acquire() as connection:
            async with connection.transaction():
                store = StoreTransaction(connection, cache)
                yield store
            store.committed()
    except Exception as error:
        if is_duplicate_race(error):
            raise LedgerRaced(str(error)) from error
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            await pool.expire_connections()  # a session that began read-only would stay so for as long as it lives
        if is_transient(error):
            cache.forget()
            raise LedgerUnavailable(f"{type(error).__name__}: {error}") from error
        raise


@dataclass(slots=True)
class StoreTransaction:
    """See :class:`worker.engine.ports.Transaction`."""

    connection: Connection
    cache: NodeCache
    finding: str = "lock_nodes"
    _loaded: Loaded | None = None
    _before: dict[UUID, Instance] = field(default_factory=dict)
    _marks: dict[str, _NodeMark] = field(default_factory=dict)
    _ids: dict[str, int | None] = field(default_factory=dict)

    async def load(self, wanted: Wanted) -> Loaded:
        """Lock, read, and make up the view."""
        view = View()
        locked = await self.connection.fetch(statement(self.finding), list(wanted.nodes))
        stale = []
        for row in locked:
            node = self.cache.take(row["name"], row["id"], row["generation"])
            if node is None:
                stale.append(row["id"])
            else:
                view.nodes[node.name] = node
        if stale:
            for node in await load_nodes(self.connection, stale):
                view.nodes[node.name] = node
        if wanted.members:
            await self._add_members(wanted)
        loaded = await self._read(view, wanted)
        self._marks = {name: _mark(node) for name, node in view.nodes.items()}
        self._ids = {name: node.id for name, node in view.nodes.items()}
        self._before = dict(view.instances)
        self._loaded = loaded
        return loaded

    async def _add_members(self, wanted: Wanted) -> None:
        for row in await self.connection.fetch(statement("members"), list(wanted.members)):
            wanted.instances.update(row["instances"])

    async def _read(self, view: View, wanted: Wanted) -> Loaded:
        rows = await self.connection.fetch(statement("read"), wanted.commands, list(wanted.instances))
        loaded = Loaded(view, {}, datetime.fromisoformat(from_json(rows[0]["doc"])))
        for what, key, document in rows[1:]:
            doc = from_json(document)
            if what == "command":
                loaded.known[key] = Known(
                    UUID(doc["fingerprint"]), doc["status"], doc["kind"], doc["node"], doc["outcome"]
                )
            else:
                view.instances[key] = _instance(key, doc)
        elsewhere = {name for instance in view.instances.values() for name in instance.nodes()} - wanted.nodes
        if elsewhere:
            raise LedgerRaced("instances hold something on other nodes too", elsewhere)
        return loaded

    async def write(self, loaded: Loaded, changes: Changes) -> None:
        """Give back, take, and record, in that order."""
        view = loaded.view
        if view.removed:
            await self._execute("remove_nodes", [node.id for node in view.removed if node.id is not None])
        if profiles := [node for node in view.nodes.values() if node.profile_changed]:
            await write_profiles(self.connection, profiles)
        changed = {key: now for key, now in view.instances.items() if now is not self._before.get(key)}
        given, taken, allocations = self._difference(view, changed.values())
        if any(given):
            await self._execute("release", *columns(given[0], 3), *columns(given[1], 3), *columns(given[2], 3))
        if taken[0] or taken[1]:
            await self._execute("take", *columns(taken[0], 3), *columns(taken[1], 3))
        if changes.unparked or changes.tried or changes.revived:
            await self._execute("settle", changes.unparked, changes.tried, changes.revived)
        if changes.parked:
            await self._execute("park", *columns([_parked_row(p, loaded.now) for p in changes.parked], 11))
        await self._record(loaded, changes, changed, allocations)

    async def _record(
        self, loaded: Loaded, changes: Changes, changed: dict[UUID, Instance], allocations: list[Row]
    ) -> None:
        touched = [node for name, node in loaded.view.nodes.items() if self._marks.get(name) != _mark(node)]
        written = await self.connection.fetchrow(
            statement("record"),
            *columns([answer_row(answer) for answer in changes.answers], 12),
            *columns([instance_row(self._before.get(key), after) for key, after in changed.items()], 12),
            *columns(allocations, 11),
            *columns([entry_row(*posting) for posting in changes.postings], 11),
            *columns([node_row(node) for node in touched], 8),
            changes.outbox,
            changes.published,
            loaded.now,
        )
        if written is None or written["answers"] != len(changes.answers) or written["instances"] != len(changed):
            raise LedgerRaced("another worker changed the same instances or answered the same commands")

    def _difference(
        self, view: View, changed: Iterable[Instance]
    ) -> tuple[tuple[list[Row], list[Row], list[Row]], tuple[list[Row], list[Row]], list[Row]]:
        """Rows of allocations, CPUs and devices given back; CPUs and devices taken; allocations as they are now."""
        allocations: list[Row] = []
        given: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
        before_marks, after_marks = _Marks(), _Marks()
        for after in changed:
            before = self._before.get(after.id)
            if before is not None and before.holdings == after.holdings:
                continue
            for holding in before.holdings if before is not None else ():
                node_id = self._ids[holding.node]
                before_marks.add(node_id, holding, after.id)
                given[0].append((after.id, node_id, holding.role))
            for holding in after.holdings:
                node_id = view.nodes[holding.node].id
                after_marks.add(node_id, holding, after.id)
                allocations.append(allocation_row(after, holding, node_id))
        given[1].extend(before_marks.cpus - after_marks.cpus)
        given[2].extend(before_marks.devices - after_marks.devices)
        taken = (list(after_marks.cpus - before_marks.cpus), list(after_marks.devices - before_marks.devices))
        return given, taken, allocations

    async def _execute(self, name: str, *arguments: Any) -> None:
        await self.connection.execute(statement(name), *arguments)

    def committed(self) -> None:
        """Remember the nodes as they are now in the database."""
        if self._loaded is not None:
            for node in self._loaded.view.nodes.values():
                self.cache.put(node)


class _Marks:
    """CPUs and devices that instances hold alone, as rows."""

    __slots__ = ("cpus", "devices")

    def __init__(self) -> None:
        self.cpus: set[Row] = set()
        self.devices: set[Row] = set()

    def add(self, node_id: int | None, holding: Holding, holder: UUID) -> None:
        placement = holding.placement
        if placement.pins:
            self.cpus.update((node_id, cpu, holder) for cpu in placement.pins)
        if placement.devices:
            self.devices.update((node_id, address, holder) for address in placement.devices)


def _mark(node: Node) -> _NodeMark:
    """What of a node changes when its row must be written."""
    return node.id, node.generation, node.parked, node.reachable, node.observed_at


def _instance(key: UUID, doc: dict[str, Any]) -> Instance:
    return Instance(
        key,
        version=doc["version"],
        project=doc["project"],
        user=doc["user"],
        revision=doc["revision"],
        state=doc["state"],
        task=doc["task"],
        os_type=doc["os_type"],
        move=doc["move"],
        stranded=doc["stranded"],
        holdings=tuple(_holding(holding) for holding in doc["holdings"] or ()),
        deleted_at=_time(doc["deleted_at"]),
    )


def _holding(doc: dict[str, Any]) -> Holding:
    placement = Placement(doc["charge"], frozenset(doc["pins"]), tuple(doc["devices"]), doc["assignment"])
    claimed_at = datetime.fromisoformat(doc["claimed_at"])
    return Holding(doc["node"], doc["role"], doc["request"], placement, claimed_at, _time(doc["lease_expires_at"]))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _parked_row(parked: Parked, now: datetime) -> Row:
    return (
        parked.node,
        parked.command,
        parked.body,
        parked.reply.to,
        parked.reply.correlation_id,
        parked.reply.traceparent,
        parked.user_id,
        parked.received_at,
        parked.blocking,
        parked.detail,
        parked.parked_at or now,
    )
