"""A seeded workload: every kind of command over many nodes, with duplicates and messages out of order.

It comes in phases. Within one, what a command meets depends on the commands
before it on its own node's queue alone, so that the outcome of each is known
beforehand: moves to another node go to roomy ones that never refuse, and an
instance that arrived there is only spoken to in the next phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from uuid import UUID

from tests.driver.model import Expected, Model

Command = dict[str, Any]

_START: Final = "2026-01-01T00:00:00Z"
_OVER: Final = "2026-01-01T00:00:01Z"
_WEIGHTS: Final = {
    "claim": 40,
    "delete": 14,
    "resize": 10,
    "immediate": 6,
    "confirm": 8,
    "revert": 5,
    "update": 8,
    "abort": 2,
    "away": 5,
    "put": 1,
    "remove": 1,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of everything: ``duplicates`` and ``reordered`` are shares of the messages."""

    seed: int
    commands: int
    nodes: int
    phases: int = 3
    duplicates: float = 0.2
    reordered: float = 0.1


@dataclass(slots=True)
class Phase:
    """Messages in the order in which they are sent, and what the first of each id is to be answered."""

    messages: list[Command]
    expected: dict[str, Expected]


@dataclass(slots=True)
class Workload:
    """Makes the phases, one after the other, and knows what should be there after the last."""

    shape: Shape
    model: Model = field(default_factory=Model)
    nodes: list[str] = field(init=False)
    roomy: list[str] = field(init=False)
    brittle: list[str] = field(init=False)
    _random: Random = field(init=False)
    _revisions: dict[str, int] = field(default_factory=dict)
    _homes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = Random(self.shape.seed)
        self.nodes = [f"cn-{number:04d}" for number in range(self.shape.nodes)]
        few = max(1, self.shape.nodes // 20)
        self.roomy, self.brittle = self.nodes[:few], self.nodes[few : 2 * few]

    def phases(self) -> Iterator[Phase]:
        """The nodes first, then the phases: commands on what the phase before left, and on what is new."""
        yield self._settled([self._put(node) for node in self.nodes])
        share, rest = divmod(self.shape.commands - len(self.nodes), self.shape.phases)
        for number in range(self.shape.phases):
            self._homes = {name: guest.held[0].node for name, guest in self.model.guests.items() if guest.held}
            commands = [self._one() for _ in range(share + (rest if number == 0 else 0))]
            yield self._settled(self._sent(commands))

    def _settled(self, messages: list[Command]) -> Phase:
        expected: dict[str, Expected] = {}
        for message in messages:
            if message["id"] not in expected:
                expected[message["id"]] = self.model.answer(message)
        return Phase(messages, expected)

    def _sent(self, commands: list[Command]) -> list[Command]:
        """The messages of a phase: some swapped with one a little later, some sent once more later still."""
        random, order = self._random, list(commands)
        for _ in range(int(len(order) * self.shape.reordered / 2)):
            first = random.randrange(len(order))
            second = min(len(order) - 1, first + random.randint(1, 400))
            order[first], order[second] = order[second], order[first]
        places = [(float(place), command) for place, command in enumerate(order)]
        twice = random.sample(range(len(order)), int(len(order) * self.shape.duplicates))
        places += [(place + random.choice((0.5, 3.5, 50.5, 2000.5)), order[place]) for place in twice]
        return [command for _, command in sorted(places, key=lambda entry: entry[0])]

    def _one(self) -> Command:
        random = self._random
        kind = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if kind in {"put", "remove"}:
            node = random.choice(self.nodes[len(self.roomy) :])
            if kind == "put":
                return self._put(node)
            return self._command("node.remove", node, force=node in self.brittle)
        if kind == "claim" or not self._homes:
            return self._claim()
        instance = random.choice(list(self._homes)) if len(self._homes) < 50 else self._recent()
        return self._about(kind, instance)

    def _recent(self) -> str:
        """One of the instances spoken of; mostly a late one."""
        names = list(self._homes)
        return names[-1 - int(self._random.random() ** 2 * (len(names) - 1))]

    def _about(self, kind: str, instance: str) -> Command:
        random, node = self._random, self._homes[instance]
        if kind == "away":
            return self._away(instance, node)
        if kind in {"resize", "immediate"}:
            mode = {"mode": "immediate"} if kind == "immediate" else {}
            return self._instance("resize", instance, node, resources=self._resources(), **mode)
        if kind == "update":
            state = random.choice(("building", "active", "active", "stopped", "shelved_offloaded"))
            return self._instance("update", instance, node, state=state)
        return self._instance(kind, instance, node)

    def _away(self, instance: str, node: str) -> Command:
        """A move to a roomy node; whoever lives on one stays there, and so does who may lose its node."""
        if node in self.roomy or node in self.brittle:
            return self._instance("resize", instance, node, resources=self._resources())
        destination = self._random.choice(self.roomy)
        if self._random.random() < 0.5:
            return self._instance("resize", instance, node, resources=self._resources(), destination=destination)
        reason = self._random.choice(("live", "cold", "evacuate"))
        return self._instance("migrate", instance, node, destination=destination, reason=reason)

    def _claim(self) -> Command:
        random = self._random
        node = random.choice(self.nodes[len(self.roomy) :])
        instance = self._uuid()
        if self._homes and random.random() < 0.1:
            instance = self._recent()
            node = self._homes[instance]
        self._homes[instance] = node
        more: Command = {}
        if random.random() < 0.1:
            more["lease_seconds"] = 30_000_000
        if random.random() < 0.05:
            second = self._uuid()
            self._homes[second] = node
            members = [{"instance": one, "node": node, "resources": self._resources()} for one in (instance, second)]
            return self._command("claim", node, project="acme", instances=members, **more)
        if random.random() < 0.05:
            more["candidates"] = [random.choice(self.roomy)]
        return self._instance("claim", instance, node, project="acme", resources=self._resources(), **more)

    def _instance(self, kind: str, instance: str, node: str, **fields: Any) -> Command:
        if self._random.random() < 0.5:
            last = self._revisions.get(instance, 0)
            fields["revision"] = max(0, last - 1) if self._random.random() < 0.05 else last + 1
            self._revisions[instance] = max(last, fields["revision"])
        return self._command(kind, node, instance=instance, **fields)

    def _command(self, kind: str, node: str, **fields: Any) -> Command:
        chance = self._random.random()
        if chance < 0.01 and kind != "node.put":
            fields["expires_at"] = _OVER
        elif chance < 0.03:
            fields["dry_run"] = True
        return {"version": 1, "id": self._uuid(), "kind": kind, "node": node, "issued_at": _START, **fields}

    def _put(self, node: str) -> Command:
        random = self._random
        if node in self.roomy:
            cpus, memory, disk, ratio = 1024, 2**34, 2**30, "1000.0"
        else:
            cpus, memory, disk, ratio = random.choice((16, 32)), random.choice((65536, 131072)), 1000, "4.0"
        policy = {
            "enabled": node in self.roomy or random.random() < 0.9,
            "ratios": {"vcpus": ratio, "memory": "1.0", "disk": "1.0"},
            "reserved": {"memory_mib": 512},
        }
        custom = {"CUSTOM_LICENSE": 2**20 if node in self.roomy else 8}
        inventory = {"cpus": f"0-{cpus - 1}", "memory_mib": memory, "disk_gib": disk, "custom": custom}
        return self._command("node.put", node, inventory=inventory, policy=policy)

    def _resources(self) -> Command:
        random = self._random
        asked: Command = {"vcpus": random.choice((1, 2, 4)), "memory_mib": random.choice((512, 2048, 8192))}
        if random.random() < 0.7:
            asked["disk"] = {"root_gib": random.choice((1, 10, 40)), "swap_mib": random.choice((0, 512))}
        if random.random() < 0.1:
            asked["custom"] = {random.choice(("CUSTOM_LICENSE", "CUSTOM_LICENSE", "CUSTOM_UNHEARD_OF")): 1}
        return asked

    def _uuid(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))
