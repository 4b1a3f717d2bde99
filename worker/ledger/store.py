"""A batch on the database: load, decide elsewhere, then write, if what was loaded is still there.

Nothing is locked while a batch is decided. It is written only while every node
that it was decided on still has the generation it had, every instance its
version and every command its status, and as one with that check: optimistic
concurrency control with backward validation (Kung and Robinson, "On Optimistic
Methods for Concurrency Control", ACM TODS 6(2), 1981). A batch that met a conflict
is run again with its nodes locked first, and meets no conflict a second time.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import asyncpg
from pydantic_core import from_json

from worker.accounting.state.instances import Holding, Instance
from worker.accounting.state.occupancy import Placement
from worker.accounting.state.view import View
from worker.engine.ports import Known, LedgerConflict, LedgerUnavailable, ReadSet
from worker.ledger.errors import is_conflict, is_transient
from worker.ledger.nodes import NodeCache, load_hosts, load_nodes, write_profiles
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

    from worker.accounting.state.view import Node
    from worker.engine.ports import Parked, ReadKeys, WriteSet
    from worker.ledger.statements import Connection

_NodeMark: TypeAlias = tuple[int | None, int, int, bool | None, datetime | None]


@asynccontextmanager
async def transaction(pool: asyncpg.Pool, cache: NodeCache, *, locking: bool) -> AsyncIterator[StoreTransaction]:
    """One batch. What it changed is remembered once it is committed.

    Raises:
        LedgerUnavailable: the database is away; whether it committed is not known.
        LedgerConflict: another worker was faster, and nothing was written.
    """
    try:
        async with pool.acquire() as connection:
            whole: AbstractAsyncContextManager[object] = connection.transaction() if locking else nullcontext()
            async with whole:
                store = StoreTransaction(connection, cache, locking)
                yield store
            store.committed()
    except Exception as error:
        if is_conflict(error):
            raise LedgerConflict(str(error)) from error
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
    locking: bool = False
    _loaded: ReadSet | None = None
    _known: dict[UUID, Known] = field(default_factory=dict)
    _before: dict[UUID, Instance] = field(default_factory=dict)
    _marks: dict[str, _NodeMark] = field(default_factory=dict)

    async def load(self, wanted: ReadKeys) -> ReadSet:
        """Read, and make up the view; with the nodes locked, if that was asked for."""
        if self.locking:
            await self._locked(wanted.nodes)
        if wanted.members:
            await self._add_members(wanted)
        loaded = await self._read(wanted)
        self._known = dict(loaded.known)
        self._before = dict(loaded.view.instances)
        self._marks = {name: _mark(node) for name, node in loaded.view.nodes.items()}
        self._loaded = loaded
        return loaded

    async def _locked(self, nodes: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Lock nodes until the end; their ids and generations."""
        rows = await self.connection.fetch(statement("lock_nodes"), list(nodes))
        return {name: (node_id, generation) for name, node_id, generation in rows}

    async def _add_members(self, wanted: ReadKeys) -> None:
        for row in await self.connection.fetch(statement("members"), list(wanted.members)):
            wanted.instances.update(row["instances"])

    async def _read(self, wanted: ReadKeys) -> ReadSet:
        rows = await self.connection.fetch(
            statement("read"), list(wanted.nodes), wanted.commands, list(wanted.instances)
        )
        loaded = ReadSet(View(), {}, datetime.fromisoformat(from_json(rows[0]["doc"])))
        found: dict[str, tuple[int, int]] = {}
        for what, key, document, name, node_id, generation in rows[1:]:
            if what == "node":
                found[name] = node_id, generation
            elif what == "command":
                doc = from_json(document)
                loaded.known[key] = Known(
                    UUID(doc["fingerprint"]), doc["status"], doc["kind"], doc["node"], doc["outcome"]
                )
            else:
                loaded.view.instances[key] = _instance(key, from_json(document))
        elsewhere = {name for instance in loaded.view.instances.values() for name in instance.nodes()} - wanted.nodes
        if elsewhere:
            raise LedgerConflict("instances hold something on other nodes too", elsewhere)
        loaded.view.nodes = await self._nodes(found)
        if absent := wanted.nodes - found.keys():
            counts = await self.connection.fetch(statement("waiting_for"), list(absent))
            loaded.view.waiting = {row["node"]: row["waiting"] for row in counts}
        loaded.view.hosts = await load_hosts(self.connection, wanted.hosts, loaded.view.nodes)
        return loaded

    async def _nodes(self, found: dict[str, tuple[int, int]]) -> dict[str, Node]:
        """Nodes in the generations found: as they are remembered, or else read whole."""
        cached = ((name, self.cache.take(name, *mark)) for name, mark in found.items())
        nodes = {name: node for name, node in cached if node is not None}
        if stale := [mark[0] for name, mark in found.items() if name not in nodes]:
            nodes |= {node.name: node for node in await load_nodes(self.connection, stale)}
            if {name: (node.id, node.generation) for name, node in nodes.items()} != found:
                raise LedgerConflict("nodes changed while they were read")
        return nodes

    async def write(self, loaded: ReadSet, changes: WriteSet) -> None:
        """Give back, take, and record, in that order.

        What one statement can hold takes effect with it, at once. More goes into
        a transaction, in which nodes are locked and held against what was loaded.
        """
        before, instances = self._before, loaded.view.instances
        changed = {key: now for key, now in instances.items() if now is not before.get(key)}
        if self.locking or not self._takes_several(loaded.view, changes, changed.values()):
            await self._write(loaded, changes, changed)
            return
        async with self.connection.transaction():
            if await self._locked(self._marks) != {name: mark[:2] for name, mark in self._marks.items()}:
                raise LedgerConflict("nodes changed while the batch was decided")
            await self._write(loaded, changes, changed)

    def _takes_several(self, view: View, changes: WriteSet, changed: Iterable[Instance]) -> bool:
        """Whether more must be written than :file:`record.sql` does."""
        if view.removed or changes.unparked or changes.tried or changes.revived or changes.parked:
            return True
        if any(node.profile_changed for node in view.nodes.values()):
            return True
        earlier = ((self._before.get(now.id), now) for now in changed)
        return any(was is not None and was.holdings and was.holdings != now.holdings for was, now in earlier)

    async def _write(self, loaded: ReadSet, changes: WriteSet, changed: dict[UUID, Instance]) -> None:
        view = loaded.view
        if view.removed:
            await self._execute("remove_nodes", [node.id for node in view.removed if node.id is not None])
        if changes.unparked or changes.tried or changes.revived:
            await self._execute("settle", list(changes.unparked), changes.tried, changes.revived)
        if changes.parked:
            await self._execute("park", *columns([_parked_row(p, loaded.now) for p in changes.parked], 11))
        await self._keep_absent_nodes(changes)
        if profiles := [node for node in view.nodes.values() if node.profile_changed]:
            await write_profiles(self.connection, profiles)  # counts what is parked for new ones
        given, taken = self._difference(view, changed.values())
        if any(given):
            await self._execute("release", *columns(given[0], 3), *columns(given[1], 3), *columns(given[2], 3))
        await self._execute(
            "record",
            *columns(self._checks(view), 2),
            *columns(self._touched(view), 8),
            *columns([answer_row(self._known.get(answer.command), answer) for answer in changes.answers], 13),
            *columns(self._instance_rows(view, changed), 12),
            *columns(taken[0], 11),
            *columns(taken[1], 3),
            *columns(taken[2], 3),
            *columns([entry_row(*posting) for posting in changes.postings], 11),
            changes.outbox,
            changes.published,
            loaded.now,
        )

    async def _keep_absent_nodes(self, changes: WriteSet) -> None:
        """Begin again where a node has come, and counted what is unparked here for one that was not there."""
        absent = {name for name in changes.unparked.values() if name not in self._marks}
        if absent and await self._locked(absent):
            raise LedgerConflict("nodes were put while the batch was decided", absent)

    def _checks(self, view: View) -> list[Row]:
        """Ids and generations of the nodes as loaded, in the order of the ids; those that are removed have none."""
        kept = {node.id for node in view.nodes.values()}
        return sorted(mark[:2] for mark in self._marks.values() if mark[0] in kept)

    def _instance_rows(self, view: View, changed: dict[UUID, Instance]) -> list[Row]:
        """Instances that changed, and where no lock keeps them as they were, those that the batch only looked at."""
        rows = changed if self.locking else view.instances
        return [instance_row(self._before.get(key), after) for key, after in rows.items()]

    def _touched(self, view: View) -> list[Row]:
        changed = (node for name, node in view.nodes.items() if self._marks.get(name) != _mark(node))
        return [node_row(node) for node in changed]

    def _difference(self, view: View, changed: Iterable[Instance]) -> tuple[_Holdings, _Holdings]:
        """Rows of allocations, CPUs and devices: those given back, and those taken."""
        before_marks, after_marks = _Marks(), _Marks()
        given: list[Row] = []
        taken: list[Row] = []
        for after in changed:
            before = self._before.get(after.id)
            if before is not None and before.holdings == after.holdings:
                continue
            for holding in before.holdings if before is not None else ():
                node_id = self._marks[holding.node][0]
                before_marks.add(node_id, holding, after.id)
                given.append((after.id, node_id, holding.role))
            for holding in after.holdings:
                node_id = view.nodes[holding.node].id
                after_marks.add(node_id, holding, after.id)
                taken.append(allocation_row(after, holding, node_id))
        return (
            (given, list(before_marks.cpus - after_marks.cpus), list(before_marks.devices - after_marks.devices)),
            (taken, list(after_marks.cpus - before_marks.cpus), list(after_marks.devices - before_marks.devices)),
        )

    async def _execute(self, name: str, *arguments: Any) -> None:
        await self.connection.execute(statement(name), *arguments)

    def committed(self) -> None:
        """Remember the nodes as they are now in the database."""
        if self._loaded is not None:
            for node in self._loaded.view.nodes.values():
                self.cache.put(node)


_Holdings: TypeAlias = tuple[list[Row], list[Row], list[Row]]


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
