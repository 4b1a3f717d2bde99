"""The pure core as a ledger: decisions on a copy of a state in memory, which replaces it when they are committed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.model.path import Crash
from tests.reference.inspection import Snapshot
from worker.accounting.state.instances import Instance
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Facts, Node, View
from worker.engine.batch import Decider
from worker.engine.intake import Item
from worker.engine.ports import Known, Lease, Parked, ReadKeys, ReadSet, WriteSet
from worker.engine.result import Result, read_keys

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class CoreLedger:
    """See :class:`tests.model.path.ModelLedger`."""

    park_deadline: float
    may_poison: bool = False
    clock: datetime = START
    nodes: dict[str, Node] = field(default_factory=dict)
    instances: dict[UUID, Instance] = field(default_factory=dict)
    known: dict[UUID, Known] = field(default_factory=dict)
    former: dict[str, str] = field(default_factory=dict)
    waiting: list[Parked] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def commit(self, items: list[Item], facts: Facts, *, dies: bool) -> list[Result]:
        self.clock += timedelta(microseconds=1)
        want = read_keys(items, facts)
        loaded = ReadSet(self._view(want), {c: self.known[c] for c in want.commands if c in self.known}, self.clock)
        deadline = timedelta(seconds=self.park_deadline)
        result = Decider(loaded, facts, 0.0, deadline, lambda _uri: None).run(items)
        if dies:
            raise Crash
        self._write(loaded, result.changes)
        return [result]

    def _view(self, want: ReadKeys) -> View:
        """Copies of everything that a batch may change."""
        instances = {id: self.instances[id] for id in want.instances if id in self.instances}
        for name in want.members:
            instances |= {id: one for id, one in self.instances.items() if one.on(name)}
        names = want.nodes.union(*(one.nodes() for one in instances.values()))
        view = View({name: _copied(self.nodes[name]) for name in names if name in self.nodes}, instances)
        view.waiting = Counter(p.node for p in self.waiting if p.blocking and p.node not in view.nodes)
        view.former = {name: self.former[name] for name in names if name in self.former}
        return view

    def _write(self, loaded: ReadSet, changes: WriteSet) -> None:
        self.waiting = [parked for parked in self.waiting if parked.command not in changes.unparked]
        self.waiting += [replace(p, parked_at=p.parked_at or loaded.now) for p in changes.parked]
        for node in loaded.view.removed:
            self.nodes.pop(node.name, None)
            self.former = {name: now for name, now in self.former.items() if now != node.name}
        for one in loaded.view.renamed:
            self.nodes.pop(one.former, None)
            self.former = {name: one.name if now == one.former else now for name, now in self.former.items()}
            self.former[one.former] = one.name
        for node in loaded.view.nodes.values():
            if node.id is None:
                node.id = len(self.entries) + 1
            self.nodes[node.name] = node
            self.former.pop(node.name, None)
        self.instances |= loaded.view.instances
        self.known |= loaded.known
        for command, _, posting in changes.postings:
            self.entries.append({
                "node": posting.node,
                "instance": str(posting.instance.id),
                "command": str(command),
                "counters": list(posting.deltas),
                "deltas": list(posting.deltas.values()),
                "used_after": list(posting.used_after.values()),
                "pins": set(posting.pins),
                "devices": set(posting.devices),
            })  # fmt: skip

    def parked(self, node: str) -> list[Parked]:
        return [parked for parked in self.waiting if parked.node == node]

    def due_leases(self) -> list[Lease]:
        due: dict[tuple[str, UUID], datetime] = {}
        for one in self.instances.values():
            for held in one.holdings:
                ends = held.lease_expires_at
                if ends is not None and ends <= self.clock and held.role != "move_source":
                    key = held.node, one.id
                    due[key] = min(ends, due.get(key, ends))
        return [Lease(node, instance, ends) for (node, instance), ends in due.items()]

    def now(self) -> datetime:
        return self.clock

    def advance(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            nodes={name: _plain_node(node) for name, node in self.nodes.items()},
            instances={str(id): _plain_instance(one) for id, one in self.instances.items()},
            entries=self.entries,
            parked={str(parked.command): parked.blocking for parked in self.waiting},
        )

    def close(self) -> None:
        """Nothing is open."""


def _copied(node: Node) -> Node:
    taken = node.occupancy
    return replace(node, occupancy=Occupancy(dict(taken.used), dict(taken.pinned), dict(taken.held)))


def _plain_node(node: Node) -> dict[str, Any]:
    return {
        "used": node.occupancy.used,
        "pinned": {cpu: str(holder) for cpu, holder in node.occupancy.pinned.items()},
        "held": {address: str(holder) for address, holder in node.occupancy.held.items()},
        "failed_builds": node.failed_builds,
        "parked": node.parked,
        "generation": node.generation,
    }


def _plain_instance(one: Instance) -> dict[str, Any]:
    return {
        "project": one.project,
        "revision": one.revision,
        "state": one.state,
        "task": one.task,
        "os_type": one.os_type,
        "move": one.move,
        "stranded": one.stranded,
        "deleted": one.deleted_at is not None,
        "holds": {
            (held.node, held.role): {
                "charge": held.placement.charge,
                "pins": set(held.placement.pins),
                "devices": set(held.placement.devices),
                "lease": held.lease_expires_at,
            }
            for held in one.holdings
        },
    }
