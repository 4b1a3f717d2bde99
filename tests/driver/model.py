"""What the pool should answer: a second opinion on every command, made of plain dictionaries and sums.

It shares no code with the product. Nothing is kept that can be added up: what
a node is charged is summed from what instances hold there, each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

Json = Mapping[str, Any]
Amounts = dict[str, int]

RELEASING: Final = {"shelved_offloaded", "deleted"}


@dataclass(frozen=True, slots=True)
class Expected:
    """A final outcome: its status, and the codes of its reasons."""

    status: str
    codes: frozenset[str] = frozenset()


APPLIED: Final = Expected("applied")


def rejected(*codes: str) -> Expected:
    """A refusal with these codes."""
    return Expected("rejected", frozenset(codes))


@dataclass(slots=True)
class Held:
    """What an instance holds on one node, in one role."""

    node: str
    role: str
    amounts: Amounts
    leased: bool = False


@dataclass(slots=True)
class Guest:
    """An instance: what it holds, and how far its producer's counter has come."""

    revision: int | None = None
    deleted: bool = False
    held: list[Held] = field(default_factory=list)

    def on(self, node: str) -> list[Held]:
        return [one for one in self.held if one.node == node]

    @property
    def moving(self) -> bool:
        return any(one.role == "move_destination" for one in self.held)


@dataclass(slots=True)
class Place:
    """A node: what may be handed out, and whether it may grow."""

    capacity: Amounts
    enabled: bool = True


class Model:
    """The fleet as it should be after the commands answered so far."""

    def __init__(self) -> None:
        self.nodes: dict[str, Place] = {}
        self.guests: dict[str, Guest] = {}
        self._seen: dict[str, dict[int, Guest]] = {}

    def answer(self, command: Json) -> Expected:
        """Expected one command, and apply it if it is to be applied."""
        if command.get("expires_at") is not None:
            return rejected("expired")  # the driver only sends deadlines that are long over
        verdict = self._barred(command)
        if verdict is None:
            rule = getattr(self, "_" + command["kind"].replace(".", "_"))
            verdict = rule(command, real=not command.get("dry_run", False))
        return verdict

    def used(self, node: str, without: Guest | None = None) -> Amounts:
        """What a node is charged, largest of both sides while an instance moves within it."""
        total: Amounts = {}
        for guest in self._on(node):
            if guest is not without:
                for name, amount in largest(guest.on(node)).items():
                    total[name] = total.get(name, 0) + amount
        return total

    def _on(self, node: str) -> list[Guest]:
        """Who holds something on a node: looked for among those that ever did."""
        seen = self._seen.setdefault(node, {})
        for key in [key for key, guest in seen.items() if not guest.on(node)]:
            del seen[key]
        return list(seen.values())

    def _hold(self, guest: Guest, held: Held) -> None:
        guest.held.append(held)
        self._seen.setdefault(held.node, {})[id(guest)] = guest

    def _barred(self, command: Json) -> Expected | None:
        if "instance" not in command or command["kind"] == "claim":
            return None
        guest = self.guests.get(command["instance"])
        if guest is not None and stale(guest, command):
            return rejected("stale")
        if command["kind"] == "delete":
            return None
        return self._absent(command, guest)

    def _absent(self, command: Json, guest: Guest | None) -> Expected | None:
        if guest is not None and guest.deleted:
            return rejected("superseded")
        homeless = guest is not None and not guest.held and command["kind"] in {"migrate", "update"}
        if command["node"] not in self.nodes and not homeless:
            return rejected("node_unknown")
        if guest is None or not (guest.on(command["node"]) or homeless):
            return rejected("instance_unknown")
        return None

    def _node_put(self, command: Json, *, real: bool) -> Expected:
        if real:
            self.nodes[command["node"]] = Place(capacity_of(command), command["policy"].get("enabled", True))
        return APPLIED

    def _node_remove(self, command: Json, *, real: bool) -> Expected:
        if command["node"] not in self.nodes:
            return rejected("node_unknown")
        holders = self._on(command["node"])
        if holders and not command.get("force"):
            return rejected("node_in_use")
        if real:
            del self.nodes[command["node"]]
            for guest in holders:
                guest.held = []
        return APPLIED

    def _claim(self, command: Json, *, real: bool) -> Expected:
        members = command.get("instances") or [command]
        barred = {code for member in members if (code := self._claim_barred(member)) is not None}
        if barred:
            return rejected(*barred)
        choices = [command["node"], *command.get("candidates", ())]
        codes: set[str] = set()
        for node in choices:
            short = self._shortages(node, [amounts_of(member) for member in members])
            if not short:
                if real:
                    self._take(members, node, leased=command.get("lease_seconds") is not None)
                return APPLIED
            codes |= short
        return rejected(*codes)

    def _claim_barred(self, member: Json) -> str | None:
        guest = self.guests.get(member["instance"])
        if guest is None:
            return None
        if guest.deleted:
            return "superseded"
        if stale(guest, member):
            return "stale"
        return "instance_exists" if guest.held else None

    def _shortages(self, node: str, wanted: Iterable[Amounts]) -> set[str]:
        place = self.nodes.get(node)
        if place is None:
            return {"node_unknown"}
        codes: set[str] = set() if place.enabled else {"node_disabled"}
        used = self.used(node)
        for amounts in wanted:
            short = shortages(place, used, amounts, {})
            codes |= short
            if not short:
                used = {name: used.get(name, 0) + amounts.get(name, 0) for name in used.keys() | amounts.keys()}
        return codes

    def _take(self, members: Iterable[Json], node: str, *, leased: bool) -> None:
        for member in members:
            guest = self.guests.setdefault(member["instance"], Guest())
            self._hold(guest, Held(node, "active", amounts_of(member), leased))
            counted(guest, member)

    def _resize(self, command: Json, *, real: bool) -> Expected:
        return self._move(command, command.get("destination") or command["node"], amounts_of(command), real=real)

    def _migrate(self, command: Json, *, real: bool) -> Expected:
        guest = self.guests[command["instance"]]
        amounts = guest.held[0].amounts if guest.held else {}
        return self._move(command, command["destination"], amounts, real=real)

    def _move(self, command: Json, destination: str, amounts: Amounts, *, real: bool) -> Expected:
        guest = self.guests[command["instance"]]
        if guest.moving:
            return rejected("move_in_progress")
        if not guest.held:
            return rejected("instance_unknown")
        place = self.nodes.get(destination)
        if place is None:
            return rejected("node_unknown")
        own = largest(guest.on(destination))
        short = shortages(place, self.used(destination, without=guest), amounts, own)
        if not place.enabled and any(amount > own.get(name, 0) for name, amount in amounts.items()):
            short.add("node_disabled")
        if short:
            return rejected(*short)
        if real:
            if command.get("mode") == "immediate":
                guest.held[0].amounts = amounts
            else:
                guest.held[0].role = "move_source"
                self._hold(guest, Held(destination, "move_destination", amounts))
            counted(guest, command)
        return APPLIED

    def _confirm(self, command: Json, *, real: bool) -> Expected:
        guest = self.guests[command["instance"]]
        if not guest.moving and not any(one.leased for one in guest.held):
            return rejected("no_move")
        if real:
            kept = [one for one in guest.held if one.role == "move_destination"] if guest.moving else guest.held
            guest.held = [Held(one.node, "active", one.amounts) for one in kept]
            counted(guest, command)
        return APPLIED

    def _revert(self, command: Json, *, real: bool) -> Expected:
        guest = self.guests[command["instance"]]
        if not guest.moving:
            return rejected("no_move")
        if real:
            guest.held = [replace(one, role="active") for one in guest.held if one.role == "move_source"]
            counted(guest, command)
        return APPLIED

    def _abort(self, command: Json, *, real: bool) -> Expected:
        guest = self.guests[command["instance"]]
        if any(one.role == "move_destination" for one in guest.on(command["node"])):
            return self._revert(command, real=real)
        return self._release(command, real=real)

    def _update(self, command: Json, *, real: bool) -> Expected:
        if command.get("state") in RELEASING and command.get("task") != "spawning":
            return self._release(command, real=real)
        if real:
            guest = self.guests[command["instance"]]
            for one in guest.on(command["node"]):
                one.leased = False
            counted(guest, command)
        return APPLIED

    def _delete(self, command: Json, *, real: bool) -> Expected:
        if real:
            self.guests.setdefault(command["instance"], Guest()).deleted = True
        return self._release(command, real=real)

    def _release(self, command: Json, *, real: bool) -> Expected:
        if real:
            guest = self.guests[command["instance"]]
            guest.held = []
            counted(guest, command)
        return APPLIED


def largest(held: Iterable[Held]) -> Amounts:
    """What one instance is charged for all it holds on a node."""
    total: Amounts = {}
    for one in held:
        for name, amount in one.amounts.items():
            total[name] = max(amount, total.get(name, 0))
    return total


def shortages(place: Place, used: Amounts, amounts: Amounts, own: Amounts) -> set[str]:
    """Codes of everything that does not fit; what does not grow beyond ``own`` always does."""
    codes = set()
    for name, amount in amounts.items():
        if amount > own.get(name, 0):
            if name not in place.capacity:
                codes.add("unknown_resource")
            elif used.get(name, 0) + amount > place.capacity[name]:
                codes.add("insufficient")
    return codes


def amounts_of(command: Json) -> Amounts:
    """What a request is charged."""
    asked = command["resources"]
    disk = asked.get("disk", {})
    amounts = {
        "vcpus": asked["vcpus"],
        "memory_mib": asked["memory_mib"],
        "disk_mib": 1024 * disk.get("root_gib", 0) + disk.get("swap_mib", 0),
        **asked.get("custom", {}),
    }
    return {name: amount for name, amount in amounts.items() if amount}


def capacity_of(command: Json) -> Amounts:
    """What a node may hand out; the driver's CPU sets are one range, its vCPU ratios whole, its reserves memory."""
    inventory, policy = command["inventory"], command["policy"]
    return {
        "vcpus": (int(inventory["cpus"].partition("-")[2]) + 1) * int(policy["ratios"]["vcpus"].partition(".")[0]),
        "memory_mib": inventory["memory_mib"] - policy["reserved"]["memory_mib"],
        "disk_mib": 1024 * inventory["disk_gib"],
        **inventory["custom"],
    }


def stale(guest: Guest, command: Json) -> bool:
    """Whether the producer's counter is not above the last applied one."""
    revision = command.get("revision")
    return revision is not None and guest.revision is not None and revision <= guest.revision


def counted(guest: Guest, command: Json) -> None:
    """Note the producer's counter of an applied command."""
    if command.get("revision") is not None:
        guest.revision = command["revision"]
