"""The reference model: what every command must come to, on plain values, in the plainest way.

Shares no code with the worker's accounting. Outcomes are given to it in the
order in which they were decided; it says what each should have been, and keeps
what instances hold. Where the rules leave a choice (which CPUs, which device)
it takes over the outcome's, after proving that it was allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.reference.room import (
    Amounts,
    Json,
    capacity,
    cell_charge,
    cpu_pools,
    cpu_set,
    grows,
    kin,
    missing,
    offered,
    plain_charge,
)


@dataclass
class Held:
    """What an instance holds on one node in one role."""

    node: str
    role: str
    shape: Json
    charge: Amounts
    pins: set[int]
    devices: set[str]
    lease: datetime | None = None


@dataclass
class Guest:
    """An instance."""

    project: str | None = None
    revision: int | None = None
    state: str | None = None
    task: str | None = None
    os_type: str | None = None
    move: str | None = None
    stranded: Json | None = None
    deleted: bool = False
    holds: list[Held] = field(default_factory=list)

    def on(self, node: str) -> list[Held]:
        return [held for held in self.holds if held.node == node]

    def role(self, role: str) -> Held | None:
        return next((held for held in self.holds if held.role == role), None)

    def is_past(self, revision: int | None) -> bool:
        return self.revision is not None and revision is not None and revision <= self.revision

    def claims(self) -> list[Held]:
        return [held for held in self.holds if held.role != "orphan"]

    def orphans(self, but_on: str | None = None) -> list[Held]:
        """What is charged because its domain runs where nothing is claimed, on nodes other than one."""
        return [held for held in self.holds if held.role == "orphan" and held.node != but_on]

    def release(self) -> None:
        self.holds, self.move, self.stranded = self.orphans(), None, None


@dataclass
class World:
    """The hypervisors: what each node's has, if it answers, and the domains on it."""

    inventories: dict[str, Json] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    domains: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Place:
    """A node: the settings it was given last, and what is known of its hardware."""

    hypervisor: str | None
    policy: Json
    inventory: Json | None
    failed_builds: int = 0


@dataclass
class Verdict:
    """What a command should come to."""

    status: str
    codes: set[str] = field(default_factory=set)
    node: str | None = None
    crowded: bool = False
    """Whether more may be refused, for reasons that depend on what the ledger would have chosen."""


Ruling = tuple[Verdict, Callable[[Json], None]]
"""What a command should come to, and what it changes if that is to be applied."""


def nothing(_outcome: Json) -> None:
    """Change nothing."""


def refuse(*codes: str) -> Ruling:
    return Verdict("rejected", set(codes)), nothing


def together(held: list[Held]) -> Amounts:
    """What all that an instance holds on a node is charged: of amounts the largest, of CPUs each once."""
    charges = [one.charge for one in held]
    total = {name: max(c.get(name, 0) for c in charges) for name in {name for c in charges for name in c}}
    return total | ({"pcpus": len(pins)} if (pins := set().union(*(one.pins for one in held))) else {})


@dataclass
class Reference:
    """The ledger as it should be."""

    world: World
    places: dict[str, Place] = field(default_factory=dict)
    guests: dict[str, Guest] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    """Of names that nodes had before: what each is called now."""
    held_up: set[str] = field(default_factory=set)
    """The nodes that commands wait for."""
    ever_on: dict[str, set[str]] = field(default_factory=dict)
    """The instances that were given something on each node: where :meth:`holders` looks."""

    def holders(self, node: str) -> dict[str, list[Held]]:
        """What each instance that holds something on a node holds there."""
        known = sorted(self.ever_on.get(node, ()))
        return {name: there for name in known if name in self.guests and (there := self.guests[name].on(node))}

    def used(self, node: str, without: str | None = None) -> Amounts:
        total: Amounts = {}
        for name, held in self.holders(node).items():
            if name != without:
                for counter, amount in together(held).items():
                    total[counter] = total.get(counter, 0) + amount
        return total

    def supposing(self) -> Reference:
        """A copy on which holdings may be added to see what then still fits."""
        return replace(self, guests=dict(self.guests), ever_on={name: set(on) for name, on in self.ever_on.items()})

    def hold(self, guest: Guest, instance: str, held: Held) -> None:
        """Add a holding to those of an instance."""
        self.guests[instance] = guest
        guest.holds.append(held)
        self.ever_on.setdefault(held.node, set()).add(instance)

    def guest(self, instance: str) -> Guest:
        return self.guests.get(instance, Guest())

    def others(self, node: str, instance: str) -> Json:
        held = [one for name, there in self.holders(node).items() if name != instance for one in there]
        return {
            "used": self.used(node, instance),
            "pins": {cpu for one in held for cpu in one.pins},
            "devices": {address for one in held for address in one.devices},
            "own_pins": {cpu for one in self.guest(instance).on(node) for cpu in one.pins},
        }

    def answers(self, node: str) -> bool:
        """Whether a node's inventory is known now."""
        place = self.places[node]
        return place.hypervisor is None or node not in self.world.silent

    def look(self, node: str) -> None:
        """Take over what the hypervisor says now, as a decision that needs it does."""
        place = self.places[node]
        if place.hypervisor is not None and node not in self.world.silent:
            place.inventory = self.world.inventories[node]

    def fit(self, node: str, instance: str, shape: Json) -> set[str]:
        """The codes of what stands against a request on a node."""
        place = self.places.get(node)
        if place is None:
            return {"node_unknown"}
        if not self.answers(node):
            entering = not self.guest(instance).on(node)
            closed = entering and not place.policy.get("enabled", True)
            return {"hypervisor_unreachable"} | ({"node_disabled"} if closed else set())
        self.look(node)
        own = together(self.guest(instance).on(node))
        enabled = place.policy.get("enabled", True)
        assert place.inventory is not None
        codes = missing(
            place.inventory,
            place.policy,
            shape,
            self.others(node, instance),
            own,
            observed=place.hypervisor is not None,
        )
        if not own or grows(place.policy, shape, self.guest(instance).on(node)):
            traits = {*place.policy.get("traits", []), *place.inventory.get("traits", [])}
            if not traits.issuperset((shape.get("traits") or {}).get("required", [])):
                codes.add("missing_trait")
            if not enabled:
                codes.add("node_disabled")
        return codes

    def take(self, node: str, instance: str, role: str, shape: Json, assignment: Json, lease: datetime | None) -> Held:
        """What an applied request holds, once it is proven that the outcome's choice was allowed."""
        place = self.places[node]
        assert place.inventory is not None
        cells = assignment["cells"]
        pins = [cpu for cell in cells for cpu in cell["pins"].values()]
        devices = [device["address"] for device in assignment["devices"]]
        charge = plain_charge(shape, place.policy)
        charge |= cell_charge(place.inventory, cells)
        own = self.guest(instance).on(node)
        own_pins = {cpu for held in own for cpu in held.pins}
        own_devices = {address for held in own for address in held.devices}
        others = self.others(node, instance)
        assert len(pins) == len(set(pins)) == charge.get("pcpus", 0)
        assert not set(pins) & others["pins"]
        assert set(pins) <= cpu_pools(place.inventory, place.policy)[1] | own_pins
        told, shared = assignment["shared_cpus"], cpu_pools(place.inventory, place.policy)[0]
        taken = others["pins"] | (own_pins if shape.get("topology") else set())
        divided = bool({"shared_cpus", "dedicated_cpus"} & place.policy.keys() or shared & taken)
        assert (cpu_set(told) == shared - taken) if divided else told is None
        assert len(devices) == len(set(devices)) == sum(request["count"] for request in shape.get("devices", []))
        assert not set(devices) & others["devices"]
        assert not {k for address in devices for k in kin(place.inventory, address)} & others["devices"]
        observed = place.hypervisor is not None
        assert set(devices) <= offered(place.inventory, place.policy, observed=observed).keys() | own_devices
        self.stays_within_capacity(place, charge, others["used"], together(own), others["pins"])
        return Held(node, role, shape, charge, set(pins), set(devices), lease)

    def stays_within_capacity(
        self, place: Place, charge: Amounts, used: Amounts, own: Amounts, pinned: set[int]
    ) -> None:
        assert place.inventory is not None
        most = capacity(place.inventory, place.policy, pinned)
        most |= {f"cell/{c['id']}/memory_mib": c["memory_mib"] for c in place.inventory.get("cells", [])}
        for name, amount in charge.items():
            if name in most and amount > own.get(name, 0):
                assert used.get(name, 0) + amount <= most[name], f"{name} grew beyond its capacity"

    def state_of(self, node: str, instance: str) -> str | None:
        """The instance's domain on a node; ``None`` where nobody answers."""
        return None if node in self.world.silent else self.world.domains.get((node, instance), "absent")


def lease_of(command: Json, now: datetime) -> datetime | None:
    seconds = command.get("lease_seconds")
    return None if seconds is None else now + timedelta(seconds=seconds)


def assignments(outcome: Json) -> dict[str, Any]:
    return {member["instance"]: member["assignment"] for member in outcome.get("assignments") or ()}
