"""A batch on the database: read, decide elsewhere, then write, if what was read is still there.

Nothing is locked while a batch is decided. It is written only while every node
that it was decided on still has the generation it had, every instance its
version and every command its status, and as one with that check: optimistic
concurrency control with backward validation (Kung and Robinson, "On Optimistic
Methods for Concurrency Control", ACM TODS 6(2), 1981). A batch that met a conflict
is run again with its nodes locked first, and meets no conflict a second time.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

import asyncpg
from pydantic_core import from_json

from worker.accounting.state.view import View
from worker.engine.ports import Known, LedgerConflict, LedgerUnavailable, ReadSet
from worker.ledger import documents
from worker.ledger.differences import Given, Taken, difference
from worker.ledger.errors import is_conflict, is_transient
from worker.ledger.nodes import NodeCache, load_hosts, load_nodes, note_former_names, rename_nodes, write_profiles
from worker.ledger.parked_rows import parked_columns
from worker.ledger.rows import (
    AllocationKeys,
    Checks,
    HeldDevices,
    PinnedCpus,
    allocation_columns,
    answer_columns,
    columns,
    entry_columns,
    instance_columns,
    node_columns,
)
from worker.ledger.sights import load_drift, record_drift, record_load
from worker.ledger.statements import bound, statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable

    from worker.accounting.state.instances import Instance
    from worker.accounting.state.view import Node
    from worker.engine.ports import ReadKeys, WriteSet
    from worker.ledger.statements import Connection

_NodeMark: TypeAlias = tuple[int | None, int, int, int, bool | None, datetime | None]


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
            cause: Literal["conflict", "deadlock"] = (
                "deadlock" if isinstance(error, asyncpg.DeadlockDetectedError) else "conflict"
            )
            raise LedgerConflict(str(error), cause=cause) from error
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
    _read: ReadSet | None = None
    _known: dict[UUID, Known] = field(default_factory=dict)
    _before: dict[UUID, Instance] = field(default_factory=dict)
    _marks: dict[str, _NodeMark] = field(default_factory=dict)

    async def load(self, keys: ReadKeys) -> ReadSet:
        """Read, and make up the view; with the nodes locked, if that was asked for."""
        if self.locking:
            await self._locked(keys.nodes)
        if keys.members:
            await self._add_members(keys)
        read = await self._read_all(keys)
        if keys.members:
            read.drift = await load_drift(self.connection, keys.members)
        self._known = dict(read.known)
        self._before = dict(read.view.instances)
        self._marks = {name: _mark(node) for name, node in read.view.nodes.items()}
        self._read = read
        return read

    async def _locked(self, nodes: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        """Lock nodes until the end; their ids and generations."""
        rows = await self.connection.fetch(statement("lock_nodes"), list(nodes))
        return {name: (node_id, generation, stamp) for name, node_id, generation, stamp in rows}

    async def _add_members(self, keys: ReadKeys) -> None:
        for row in await self.connection.fetch(statement("members"), list(keys.members)):
            keys.instances.update(row["instances"])

    async def _read_all(self, keys: ReadKeys) -> ReadSet:
        rows = await self.connection.fetch(statement("read"), list(keys.nodes), keys.commands, list(keys.instances))
        read = ReadSet(View(), {}, datetime.fromisoformat(from_json(rows[0]["doc"])))
        found: dict[str, tuple[int, int, int]] = {}
        for what, key, document, name, node_id, generation, stamp in rows[1:]:
            if what == "node":
                found[name] = node_id, generation, stamp
            elif what == "command":
                read.known[key] = documents.known(from_json(document))
            else:
                read.view.instances[key] = documents.instance(key, from_json(document))
        elsewhere = {name for instance in read.view.instances.values() for name in instance.nodes()} - keys.nodes
        if elsewhere:
            raise LedgerConflict("instances hold something on other nodes too", elsewhere)
        read.view.nodes = await self._nodes(found)
        if absent := keys.nodes - found.keys():
            counts = await self.connection.fetch(statement("waiting_for"), list(absent))
            read.view.waiting = {row["node"]: row["waiting"] for row in counts}
            read.view.former = {row["node"]: row["renamed_to"] for row in counts if row["renamed_to"] is not None}
        read.view.hosts = await load_hosts(self.connection, keys.hosts, read.view.nodes)
        return read

    async def _nodes(self, found: dict[str, tuple[int, int, int]]) -> dict[str, Node]:
        """Nodes in the generations found: as they are remembered, or else read whole."""
        cached = ((name, self.cache.take(name, *mark)) for name, mark in found.items())
        nodes = {name: node for name, node in cached if node is not None}
        if stale := [mark[0] for name, mark in found.items() if name not in nodes]:
            nodes |= {node.name: node for node in await load_nodes(self.connection, stale)}
            if {name: _mark(node)[:3] for name, node in nodes.items()} != found:
                raise LedgerConflict("nodes changed while they were read")
        return nodes

    async def write(self, read: ReadSet, writes: WriteSet) -> None:
        """Give back, take, and record, in that order.

        What one statement can hold takes effect with it, at once. More goes into
        a transaction, in which nodes are locked and held against what was read.
        """
        before, instances = self._before, read.view.instances
        changed = {key: now for key, now in instances.items() if now is not before.get(key)}
        if self.locking or not self._takes_several(read.view, writes, changed.values()):
            await self._write(read, writes, changed)
            return
        async with self.connection.transaction():
            if await self._locked(self._marks) != {name: mark[:3] for name, mark in self._marks.items()}:
                raise LedgerConflict("nodes changed while the batch was decided")
            await self._write(read, writes, changed)

    def _takes_several(self, view: View, writes: WriteSet, changed: Iterable[Instance]) -> bool:
        """Whether more must be written than :file:`record.sql` does."""
        if any(
            (view.removed, writes.unparked, writes.tried, writes.revived, writes.parked, writes.drift, writes.loads)
        ):
            return True
        if any(node.profile_changed for node in view.nodes.values()):
            return True
        earlier = ((self._before.get(now.id), now) for now in changed)
        return any(was is not None and was.holdings and was.holdings != now.holdings for was, now in earlier)

    async def _write(self, read: ReadSet, writes: WriteSet, changed: dict[UUID, Instance]) -> None:
        view = read.view
        if view.removed:
            await self._execute("remove_nodes", [node.id for node in view.removed if node.id is not None])
        if writes.unparked or writes.tried or writes.revived:
            await self._execute("settle", list(writes.unparked), writes.tried, writes.revived)
        if writes.parked:
            await self.connection.execute(*bound("park", commands=parked_columns(writes.parked, read.now)))
        await self._keep_absent_nodes(writes)
        await rename_nodes(self.connection, view)
        if profiles := [node for node in view.nodes.values() if node.profile_changed]:
            await write_profiles(self.connection, profiles)  # counts what is parked for new ones
        await note_former_names(self.connection, view)
        if writes.drift:
            await record_drift(self.connection, writes.drift, view.nodes, read.now)
        if writes.loads:
            await record_load(self.connection, writes.loads, view.nodes, read.now)
        given, taken = difference(self._before, {name: mark[0] for name, mark in self._marks.items()}, view, changed)
        if any(given):
            await self._release(given)
        await self._record(read, writes, self._instances(view, changed), taken)
        if view.removed:
            await self._execute("repair_parked", [node.name for node in view.removed])

    async def _release(self, given: Given) -> None:
        released = bound(
            "release",
            allocations=columns(AllocationKeys, given.allocations),
            cpus=columns(PinnedCpus, given.cpus),
            devices=columns(HeldDevices, given.devices),
        )
        await self.connection.execute(*released)

    async def _record(self, read: ReadSet, writes: WriteSet, instances: Collection[Instance], taken: Taken) -> None:
        recorded = bound(
            "record",
            checks=columns(Checks, self._checks(read.view)),
            nodes=node_columns(self._touched(read.view)),
            answers=answer_columns(self._known, writes.answers),
            instances=instance_columns(self._before, instances, read.now),
            allocations=allocation_columns(taken.allocations),
            cpus=columns(PinnedCpus, taken.cpus),
            devices=columns(HeldDevices, taken.devices),
            entries=entry_columns(writes.postings),
            outbox=writes.outbox,
            published=writes.published,
            now=read.now,
        )
        await self.connection.execute(*recorded)

    async def _keep_absent_nodes(self, writes: WriteSet) -> None:
        """Begin again where a node has come, and counted what is unparked here for one that was not there."""
        absent = {name for name in writes.unparked.values() if name not in self._marks}
        if absent and await self._locked(absent):
            raise LedgerConflict("nodes were put while the batch was decided", absent)

    def _checks(self, view: View) -> list[tuple[int | None, int, int]]:
        """Ids and generations of the nodes as read, in the order of the ids; those that are removed have none."""
        kept = {node.id for node in view.nodes.values()}
        return sorted(mark[:3] for mark in self._marks.values() if mark[0] in kept)

    def _instances(self, view: View, changed: dict[UUID, Instance]) -> Collection[Instance]:
        """Instances that changed, and where no lock keeps them as they were, those that the batch only looked at."""
        return (changed if self.locking else view.instances).values()

    def _touched(self, view: View) -> list[Node]:
        """Nodes whose rows are to be written; a new generation has a stamp that none ever had."""
        touched = [node for name, node in view.nodes.items() if self._marks.get(name) != _mark(node)]
        for node in touched:
            if self._marks.get(node.name, ())[:2] != (node.id, node.generation):
                node.stamp = secrets.randbits(63)
        return touched

    async def _execute(self, name: str, *arguments: Any) -> None:
        await self.connection.execute(statement(name), *arguments)

    def committed(self) -> None:
        """Remember the nodes as they are now in the database."""
        if self._read is not None:
            for node in self._read.view.nodes.values():
                self.cache.put(node)


def _mark(node: Node) -> _NodeMark:
    """What of a node changes when its row must be written."""
    return node.id, node.generation, node.stamp, node.parked, node.reachable, node.observed_at
