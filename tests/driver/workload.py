"""A seeded workload: every kind of command over many nodes, with duplicates and messages out of order.

It comes in phases, and what instances are where is taken from the judgement of
the phase before. Within one, what a command meets depends on the commands
before it on its own node's queue alone: moves to another node go to roomy ones
that never refuse, and an instance that arrived there is only spoken to in the
next phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from uuid import UUID

from tests.driver.judge import Judgement

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

_CARD: Final = [
    {"address": "0000:5e:00.0", "vendor": "8086", "product": "158b", "type": "pf"},
    *(
        {"address": f"0000:5e:02.{n}", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"}
        for n in range(4)
    ),
]
_NIC: Final = {"name": "nic", "match": [{"vendor": "8086"}], "affinity": "preferred", "count": 1}


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of everything: ``duplicates``, ``reordered`` and copies ``astray`` are shares of the messages.

    ``hosted`` is the share of the nodes that have a hypervisor; the inventory of the others is pushed.
    """

    seed: int
    commands: int
    nodes: int
    phases: int = 3
    duplicates: float = 0.2
    reordered: float = 0.1
    astray: float = 0.01
    hosted: float = 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """A command as it is sent; ``astray``: a copy of one, on another shard than its node's."""

    command: Command
    astray: bool = False


@dataclass(slots=True)
class Phase:
    """Messages in the order in which they are sent."""

    messages: list[Message]

    @property
    def commands(self) -> dict[str, Command]:
        """Every command by its id, in the order in which its node's queue has it first."""
        found: dict[str, Command] = {}
        for message in self.messages:
            if not message.astray:
                found.setdefault(message.command["id"], message.command)
        return found


@dataclass(slots=True)
class Workload:
    """Makes the phases, one after the other, and knows what should be there after the last."""

    shape: Shape
    judgement: Judgement = field(default_factory=Judgement)
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Of the nodes that have a hypervisor, where it is."""
    nodes: list[str] = field(init=False)
    roomy: list[str] = field(init=False)
    brittle: list[str] = field(init=False)
    hosted: list[str] = field(init=False)
    _random: Random = field(init=False)
    _revisions: dict[str, int] = field(default_factory=dict)
    _homes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = Random(self.shape.seed)
        self.nodes = [f"cn-{number:04d}" for number in range(self.shape.nodes)]
        few = max(1, self.shape.nodes // 20)
        self.roomy, self.brittle = self.nodes[:few], self.nodes[few : 2 * few]
        self.hosted = self.nodes[few:][: int(self.shape.hosted * self.shape.nodes)]

    def phases(self) -> Iterator[Phase]:
        """The nodes first, then the phases: commands on what the phase before left, and on what is new.

        A phase is to be judged before the next one is asked for.
        """
        yield self._phase([self._put(node) for node in self.nodes])
        share, rest = divmod(self.shape.commands - len(self.nodes), self.shape.phases)
        for number in range(self.shape.phases):
            guests = self.judgement.reference.guests
            self._homes = {name: guest.holds[0].node for name, guest in guests.items() if guest.holds}
            commands = [self._one() for _ in range(share + (rest if number == 0 else 0))]
            yield self._phase(self._sent(commands), self.shape.astray)

    def _phase(self, commands: list[Command], astray: float = 0.0) -> Phase:
        """Copies on wrong shards come right behind what they are copies of, or overtake it."""
        messages = [Message(command) for command in commands]
        for place in sorted(self._random.sample(range(len(messages)), int(len(messages) * astray)), reverse=True):
            copy = Message(messages[place].command, astray=True)
            messages.insert(max(0, place + self._random.choice((0, 1, 1, 50))), copy)
        phase = Phase(messages)
        self.judgement.sent |= phase.commands
        self.judgement.astray |= {message.command["id"] for message in messages if message.astray}
        return phase

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
            return self._instance("resize", instance, node, **self._wants(), **mode)
        if kind == "update":
            state = random.choice(("building", "active", "active", "stopped", "shelved_offloaded"))
            return self._instance("update", instance, node, state=state)
        return self._instance(kind, instance, node)

    def _away(self, instance: str, node: str) -> Command:
        """A move to a roomy node; whoever lives on one stays there, and so does who may lose its node."""
        if node in self.roomy or node in self.brittle:
            return self._instance("resize", instance, node, **self._wants())
        destination = self._random.choice(self.roomy)
        if self._random.random() < 0.5:
            return self._instance("resize", instance, node, **self._wants(), destination=destination)
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
        return self._instance("claim", instance, node, project="acme", **self._wants(), **more)

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
        random, split, devices = self._random, dict[str, str](), list[Command]()
        if node in self.addresses:
            return self._command("node.put", node, hypervisor=self.addresses[node], policy=self._hosted_policy())
        if node in self.roomy:
            cpus, memory, disk, ratio = 1024, 2**34, 2**30, "1000.0"
        else:
            cpus, memory, disk, ratio = random.choice((16, 32)), random.choice((65536, 131072)), 1000, "4.0"
            split, devices = {"shared_cpus": f"0-{cpus - 9}", "dedicated_cpus": f"{cpus - 8}-{cpus - 1}"}, _CARD
        policy = {
            "enabled": node in self.roomy or random.random() < 0.9,
            "ratios": {"vcpus": ratio, "memory": "1.0", "disk": "1.0"},
            "reserved": {"memory_mib": 512},
            **split,
        }
        custom = {"CUSTOM_LICENSE": 2**20 if node in self.roomy else 8}
        inventory = {
            "cpus": f"0-{cpus - 1}",
            "memory_mib": memory,
            "disk_gib": disk,
            "custom": custom,
            "devices": devices,
        }
        return self._command("node.put", node, inventory=inventory, policy=policy)

    def _hosted_policy(self) -> Command:
        """More often than not, what the hypervisor said a moment ago is not good enough."""
        random = self._random
        return {
            "enabled": random.random() < 0.9,
            "shared_cpus": "0-7",
            "dedicated_cpus": "8-15",
            "ratios": {"vcpus": "8.0", "memory": "16.0", "disk": "1.0"},
            "max_inventory_age_seconds": random.choice((0, 0, 1)),
            "verify_deletes": random.random() < 0.5,
        }

    def _wants(self) -> Command:
        """What an instance asks for: amounts, and now and then CPUs of its own or functions of a network card."""
        chance, asked = self._random.random(), {"resources": self._resources()}
        if chance < 0.1:
            return {**asked, "topology": {"cpu_policy": "dedicated"}}
        if chance < 0.2:
            return {**asked, "devices": [{**_NIC, "type": self._random.choice(("vf", "vf", "pf"))}]}
        return asked

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
