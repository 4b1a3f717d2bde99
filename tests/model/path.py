"""The path that the model drives: queues as a broker keeps them, lanes, batches, crashes and replays.

What decides and stores is left to a ledger: the pure core in memory, or the
real one. A message stays in its queue until it is acknowledged; a crash
delivers everything again, in order.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from schemas import Inventory, parse_command
from tests.model.bench import Bench
from tests.reference.inspection import Snapshot
from tests.reference.room import Json
from worker.accounting.state.domains import Domain, DomainMemory
from worker.accounting.state.view import Facts, Observation
from worker.engine.intake import Item, fingerprint, unpark
from worker.engine.leases import expiry
from worker.engine.ports import Delivery, Lease, Parked
from worker.engine.result import Inquiry, Result

MOST_TURNS = 200


class Crash(BaseException):
    """The worker dies here."""


class AnyPath(Protocol):
    """What the model drives: this path, or a whole worker's."""

    plays_hypervisors: bool
    bench: Bench
    ledger: ModelLedger
    dead: list[bytes]
    sent: list[bytes]

    def publish(self, command: Json) -> None: ...

    def publish_body(self, body: bytes) -> None: ...

    def work(self, limit: int, *, dies_in: int | None = None, dies_after: int | None = None) -> None: ...

    def probe(self, node: str, address: str | None) -> None: ...

    def expire_leases(self) -> None: ...

    def replay(self, which: int) -> None: ...

    def misroute(self, body: bytes) -> None: ...


class ModelLedger(Protocol):
    """Decides and stores."""

    may_poison: bool

    def commit(self, items: list[Item], facts: Facts, *, dies: bool) -> list[Result]:
        """Decide a batch and commit it; or die just before the commit, with :class:`Crash`."""

    def parked(self, node: str) -> list[Parked]: ...

    def due_leases(self) -> list[Lease]: ...

    def now(self) -> datetime: ...

    def advance(self, seconds: float) -> None: ...

    def snapshot(self) -> Snapshot: ...

    def close(self) -> None: ...


@dataclass
class Message:
    """A message in its node's queue."""

    number: int
    command: Json
    body: bytes
    redelivered: bool = False
    astray: bool = False
    """It came on another shard than its node's, and its letter is in the dead letters."""


@dataclass
class CommandPath:
    """One worker's path, with everything on it."""

    ledger: ModelLedger
    park_deadline: float
    plays_hypervisors: bool = True
    bench: Bench = field(default_factory=Bench)
    queues: dict[str, list[Message]] = field(default_factory=dict)
    lanes: dict[str, deque[Item]] = field(default_factory=dict)
    inquiries: dict[str, Inquiry] = field(default_factory=dict)
    astray: list[Message] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    offered: Facts = field(default_factory=Facts)
    published: int = 0

    def publish(self, command: Json) -> None:
        self.publish_body(json.dumps(command).encode())
        self.sent.append(json.dumps(command).encode())

    def publish_body(self, body: bytes) -> None:
        command = json.loads(body)
        self.published += 1
        message = Message(self.published, command, body)
        self.queues.setdefault(command["node"], []).append(message)
        self._deliver(message)

    def _deliver(self, message: Message) -> None:
        delivery = Delivery(0, message.body, message.number, message, message.redelivered, 0.0)
        command = parse_command(message.body)
        item = Item(command, fingerprint(command), delivery)
        if message.astray:
            item.dead_lettered = ("misrouted", "it came on another shard")
        self.lanes.setdefault(command.node, deque()).append(item)

    def work(self, limit: int, *, dies_in: int | None = None, dies_after: int | None = None) -> None:
        """Work until nothing waits; or die just before or just after the commit of a batch."""
        for turn in range(MOST_TURNS):
            facts = self._answers()
            items = self._take(limit)
            if not items:
                return
            try:
                results = self.ledger.commit(items, facts, dies=turn == dies_in)
            except Crash:
                self._restart()
                return
            self._judge(results)
            if turn == dies_after:
                self._restart()
                return
            self._hand_on(results)
        raise AssertionError("the path never comes to rest")

    def _take(self, limit: int) -> list[Item]:
        """An even share of each lane."""
        lanes = [lane for lane in self.lanes.values() if lane]
        share = max(1, limit // max(1, len(lanes)))
        return [lane.popleft() for lane in lanes for _ in range(min(share, len(lane)))]

    def _answers(self) -> Facts:
        """What the hypervisors say to everything that was asked."""
        facts, self.offered = self.offered, Facts()
        world = self.bench.world
        for inquiry in self.inquiries.values():
            facts.update(inquiry.facts)
        for inquiry in self.inquiries.values():
            for node in inquiry.question.inventories:
                facts.observations[node] = self.observation(node, inquiry.addresses.get(node))
            for node in inquiry.question.listings:
                known = node in inquiry.addresses and node not in world.silent
                facts.listings[node] = self.domains(node) if known else None
            for node, instance in inquiry.question.domains:
                known = node in inquiry.addresses and node not in world.silent
                state = world.domains.get((node, str(instance)), "absent") if known else None
                facts.domains[node, instance] = state  # type: ignore[assignment] # the world knows no other states
        self.inquiries.clear()
        return facts

    def domains(self, node: str) -> list[Domain]:
        """All domains of a node, each of one vCPU and 64 MiB."""
        there = self.bench.world.domains.items()
        memory = (DomainMemory(0, 64),)
        return [
            Domain(UUID(name), "guest", state == "running", 1, 64, memory=memory)
            for (where, name), state in there
            if where == node
        ]

    def observation(self, node: str, address: str | None) -> Observation:
        world = self.bench.world
        inventory = None if node in world.silent or address is None else world.inventories[node]
        parsed = None if inventory is None else Inventory.model_validate_json(json.dumps(inventory))
        return Observation(self.ledger.now(), address, parsed)

    def _judge(self, results: list[Result]) -> None:
        for result in results:
            self.answered |= {item.delivery.tag for item, _, _ in result.dead_lettered if item.delivery is not None}
            for parked in result.changes.parked:
                if str(parked.command) in self.bench.parked and not parked.blocking:
                    # it came back and holds nobody up any more: those behind it may go on in the same batch
                    self.bench.still_parked({"id": str(parked.command), "node": parked.node}, blocking=False)
            for item, rendered in result.outcomes:
                command = json.loads(item.command.model_dump_json(exclude_unset=True))
                command["kind"] = item.command.kind
                self._keeps_order(item, rendered.status)
                poison = item.dead_lettered is not None
                self.bench.judge(command, rendered.text, parked=item.parked is not None, may_be_dead=poison)
            for item, reason, _ in result.dead_lettered:
                self._judge_dead_letter(item, reason)
            for parked in result.changes.parked:
                self.bench.still_parked({"id": str(parked.command), "node": parked.node}, blocking=parked.blocking)

    def _judge_dead_letter(self, item: Item, reason: str) -> None:
        if reason == "id_reuse":
            assert str(item.command.id) in self.bench.outcomes
        elif reason == "hypervisor_timeout":
            assert item.parked is not None
            waited = self.ledger.now() - (item.parked.parked_at or self.ledger.now())
            assert waited.total_seconds() >= self.park_deadline
        else:
            assert reason == "poison"
            assert self.ledger.may_poison
            assert item.delivery is not None
            assert item.delivery.redelivered

    def _keeps_order(self, item: Item, status: str) -> None:
        """Nothing is answered before what stands in front of it in its queue."""
        if item.delivery is None or status == "dead":
            return
        before = [m.number for m in self.queues[item.command.node] if m.number < item.delivery.tag]
        assert set(before) <= self.answered
        self.answered.add(item.delivery.tag)

    def _restart(self) -> None:
        """Everything that was not acknowledged is delivered again."""
        self.lanes.clear()
        self.inquiries.clear()
        self.offered = Facts()
        for queue in (*self.queues.values(), self.astray):
            for message in queue:
                message.redelivered = True
                self._deliver(message)

    def _hand_on(self, results: list[Result]) -> None:
        held: dict[str, list[Item]] = {}
        for result in results:
            self.inquiries.update(result.inquiries)
            for item in result.done:
                self._acknowledge(item)
            for item, reason, detail in result.dead_lettered:
                self._dead_letter(item, reason, detail)
            for item in result.held:
                held.setdefault(item.command.node, []).append(item)
        for node, items in held.items():
            self.lanes.setdefault(node, deque()).extendleft(reversed(items))
        for node in {node for result in results for node in result.stuck}:
            self._forget_parked(node)

    def _forget_parked(self, node: str) -> None:
        """Leave what is parked where it is parked, unless it has only to be recorded as dead."""
        lane = self.lanes.get(node, deque())
        self.lanes[node] = deque(item for item in lane if item.parked is None or item.dead_lettered is not None)

    def _acknowledge(self, item: Item) -> None:
        if item.delivery is not None:
            for queue in (self.queues.get(item.command.node, []), self.astray):
                queue[:] = [message for message in queue if message.number != item.delivery.tag]

    def _dead_letter(self, item: Item, reason: str, detail: str) -> None:
        source = item.delivery or item.parked
        if reason == "id_reuse":
            self._acknowledge(item)
            return
        assert source is not None
        self.dead.append(source.body)
        item.dead_lettered = (reason, detail)
        self.lanes.setdefault(item.command.node, deque()).appendleft(item)

    def probe(self, node: str, address: str | None) -> None:
        """Bring back what is parked, if the node answers or what is parked has waited for too long."""
        parked = self.ledger.parked(node)
        if address is not None:
            self.offered.observations[node] = self.observation(node, address)
            if self.offered.observations[node].inventory is None:
                latest = self.ledger.now() - timedelta(seconds=self.park_deadline)
                parked = [one for one in parked if one.parked_at is not None and one.parked_at <= latest]
        self._forget_parked(node)
        self.lanes[node].extendleft(reversed([unpark(one) for one in parked]))

    def expire_leases(self) -> None:
        for lease in self.ledger.due_leases():
            self.lanes.setdefault(lease.node, deque()).append(expiry(lease))

    def replay(self, which: int) -> None:
        if self.dead:
            self.publish_body(self.dead.pop(which % len(self.dead)))

    def misroute(self, body: bytes) -> None:
        """The same bytes once more, on a shard that is not their node's."""
        self.published += 1
        message = Message(self.published, json.loads(body), body, astray=True)
        self.astray.append(message)
        self.dead.append(body)
        self._deliver(message)
