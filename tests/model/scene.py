"""One command after the other on the pure core, every outcome and every state held against the model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from uuid import UUID

from tests.model.core import CoreLedger
from tests.model.path import CommandPath
from tests.reference.ledger import Guest
from tests.reference.room import Amounts, Json

PARK_DEADLINE = 3600.0
HOST = {"cpus": "0-3", "memory_mib": 8704, "disk_gib": 100}
FRESH = {"ratios": {"vcpus": "2.0"}, "max_inventory_age_seconds": 0}
URI = "test:///default"


def uuid(number: int) -> str:
    return str(UUID(int=number))


def asks(vcpus: int = 1, memory_mib: int = 512, **more: object) -> Json:
    """The fields of a claim or a resize that say how much is wanted."""
    return {"resources": {"vcpus": vcpus, "memory_mib": memory_mib}, **more}


def pinned(vcpus: int, memory_mib: int = 512, **more: object) -> Json:
    return asks(vcpus, memory_mib, topology={"cpu_policy": "dedicated", **more})


@dataclass
class Scene:
    """A ledger, and what happens to it."""

    ledger: CoreLedger = field(default_factory=lambda: CoreLedger(PARK_DEADLINE))
    ids: int = 0

    def __post_init__(self) -> None:
        self.path = CommandPath(self.ledger, PARK_DEADLINE)
        self.world = self.path.bench.world

    def send(self, kind: str, node: str, **fields: object) -> str:
        """Put a command on its lane; returns its id."""
        self.ids += 1
        command = {"version": 1, "id": uuid(10_000 + self.ids), "kind": kind, "node": node}
        self.path.publish({**command, "issued_at": "2026-01-01T00:00:00Z", **fields})
        return uuid(10_000 + self.ids)

    def work(self, *commands: str) -> list[Json]:
        """Work until nothing waits; the outcomes of some commands."""
        self.path.work(100)
        self.path.bench.inspect(self.ledger.snapshot())
        return [json.loads(self.path.bench.outcomes[command]) for command in commands]

    def do(self, kind: str, node: str, **fields: object) -> Json:
        """One command, and its outcome."""
        return self.work(self.send(kind, node, **fields))[0]

    def applied(self, kind: str, node: str, **fields: object) -> Json:
        outcome = self.do(kind, node, **fields)
        assert outcome["status"] == "applied", outcome
        return outcome

    def refused(self, kind: str, node: str, **fields: object) -> set[str]:
        """The codes with which a command is refused."""
        outcome = self.do(kind, node, **fields)
        assert outcome["status"] == "rejected", outcome
        return {reason["code"] for reason in outcome["reasons"]}

    def nodes(self, *names: str, policy: Json = FRESH, **inventory: object) -> None:
        """Register nodes of four CPUs, or of another inventory."""
        for name in names:
            self.applied("node.put", name, inventory={**HOST, **inventory}, policy=policy)

    def hypervisor(self, name: str, policy: Json = FRESH, **inventory: object) -> None:
        """Register a node with a hypervisor that answers."""
        self.world.inventories[name] = {**HOST, **inventory}
        self.applied("node.put", name, hypervisor=URI, policy=policy)

    def claim(self, node: str, instance: int, **fields: object) -> Json:
        shape = {} if "resources" in fields else asks()
        return self.applied("claim", node, instance=uuid(instance), project="blue", **shape, **fields)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and let the leases expire that ran out."""
        self.ledger.advance(seconds)
        self.path.expire_leases()
        self.work()

    def probe(self, node: str) -> None:
        """Bring back what is parked on a node, if its hypervisor answers."""
        self.path.probe(node, self.ledger.nodes[node].hypervisor if node in self.ledger.nodes else None)
        self.work()

    def status(self, command: str) -> str:
        return str(json.loads(self.path.bench.outcomes[command])["status"])

    def used(self, node: str) -> Amounts:
        return dict(self.ledger.nodes[node].occupancy.used)

    def pins(self, node: str, instance: int) -> set[int]:
        return {cpu for cpu, holder in self.ledger.nodes[node].occupancy.pinned.items() if holder.int == instance}

    def devices(self, node: str, instance: int) -> set[str]:
        return {address for address, holder in self.ledger.nodes[node].occupancy.held.items() if holder.int == instance}

    def guest(self, instance: int) -> Guest:
        return self.path.bench.reference.guests[uuid(instance)]
