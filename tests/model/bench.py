"""The judge's bench: every outcome is held against the reference model, and the state against its sums."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.model.judge import rule
from tests.model.reference import Reference, Verdict, World, together
from tests.model.room import Amounts, Json
from tests.published import published


@dataclass
class Snapshot:
    """The ledger's whole state on plain values; ``entries`` from the first to the last."""

    nodes: dict[str, Json] = field(default_factory=dict)
    instances: dict[str, Json] = field(default_factory=dict)
    entries: list[Json] = field(default_factory=list)
    parked: dict[str, bool] = field(default_factory=dict)


@dataclass
class Bench:
    """Judges the outcomes of one run, in the order of their decisions."""

    world: World = field(default_factory=World)
    outcomes: dict[str, str] = field(default_factory=dict)
    parked: dict[str, tuple[str, bool]] = field(default_factory=dict)
    charged: list[tuple[datetime, str, Amounts]] = field(default_factory=list)
    """When each project was charged how much after a decision, of plain resources."""
    past: list[tuple[datetime, dict[str, Amounts]]] = field(default_factory=list)
    """What every node was charged after a decision."""

    def __post_init__(self) -> None:
        self.reference = Reference(self.world)

    def judge(self, command: Json, text: str, *, parked: bool = False, may_be_dead: bool = False) -> None:
        """Hold one outcome against the model. ``parked`` tells a command that comes back from its wait."""
        outcome = published(text)
        known = self.outcomes.get(command["id"])
        status = outcome["status"]
        if known is not None and not parked and json.loads(known)["status"] != "dead":
            assert known == text, "a duplicate was answered in another way"
            return
        if status == "dead":
            assert may_be_dead, f"put away: {outcome}"
            self._settled(command, text)
            return
        if parked:
            self._comes_in_turn(command["id"])
        now = datetime.fromisoformat(outcome["at"])
        if not parked and (behind := self._waits(command)):
            assert status == "parked", f"went ahead of {behind}"
            self._settled(command, text, blocking=True)
            return
        self.reference.held_up = {node for node, blocking in self.parked.values() if blocking}
        verdict, effect = rule(self.reference, command, now, waited=parked)
        self._compare(command, verdict, outcome)
        if status == "applied":
            effect(outcome)
            self.charged.append((now, "blue", self._blue()))
            self.past.append((now, {name: self.reference.used(name) for name in self.reference.places}))
        self._settled(command, text, blocking=verdict.status == "parked")

    def _comes_in_turn(self, command: str) -> None:
        """What waited behind others is not decided before them."""
        node, blocking = self.parked[command]
        waiting = [id for id, (where, blocks) in self.parked.items() if where == node and blocks]
        assert not blocking or waiting[0] == command, "went ahead of what was parked before it"

    def _compare(self, command: Json, verdict: Verdict, outcome: Json) -> None:
        status, codes = outcome["status"], {reason["code"] for reason in outcome["reasons"]}
        what = f"{command} came to {outcome}, expected {verdict}"
        if verdict.status == "together":
            assert status == "applied" or (codes and self._crowded(command)), what
            return
        assert status == ("parked" if verdict.status == "parked aside" else verdict.status), what
        if "instances" in command:
            assert codes >= verdict.codes, what
        else:
            assert codes == verdict.codes, what
        if verdict.node is not None:
            assert outcome["node"] == verdict.node, what

    def _crowded(self, command: Json) -> bool:
        """Whether members of a group may stand in each other's way."""
        nodes = [member["node"] for member in command["instances"]]
        return len(set(nodes)) < len(nodes)

    def _waits(self, command: Json) -> str | None:
        """The parked command that holds this one back, if one does."""
        if command.get("dry_run") or command["kind"] in {"expire", "node.put", "node.remove"}:
            return None
        guest = self.reference.guests.get(command.get("instance", ""))
        if command.get("candidates"):
            return None
        if command.get("reason") == "evacuate" and command["kind"] == "migrate":
            return None
        if command["kind"] in {"confirm", "revert"} and guest is not None and guest.move == "evacuate":
            return None
        if command["node"] not in self.reference.places:
            return None
        return next((id for id, (node, blocking) in self.parked.items() if blocking and node == command["node"]), None)

    def _settled(self, command: Json, text: str, *, blocking: bool = False) -> None:
        self.outcomes[command["id"]] = text
        if json.loads(text)["status"] == "parked":
            self.parked[command["id"]] = (command["node"], blocking)
        else:
            self.parked.pop(command["id"], None)

    def still_parked(self, command: Json, *, blocking: bool) -> None:
        """A command was parked, or came back from its wait and has to wait on, at the end of the line."""
        self.parked.pop(command["id"], None)
        self.parked[command["id"]] = (command["node"], blocking)

    def _blue(self) -> Amounts:
        total: Amounts = {}
        for guest in self.reference.guests.values():
            if guest.project == "blue":
                for node in {held.node for held in guest.holds}:
                    for name, amount in together(guest.on(node)).items():
                        if "/" not in name:
                            total[name] = total.get(name, 0) + amount
        return total

    def used_by_blue(self, until: datetime) -> dict[str, int]:
        """Amounts times microseconds that the project was charged, step by step; what is 0 left out."""
        total: dict[str, int] = {}
        ends = [at for at, _, _ in self.charged[1:]] + [until]
        for (at, _, amounts), end in zip(self.charged, ends, strict=True):
            for name, amount in amounts.items():
                total[name] = total.get(name, 0) + amount * ((end - at) // timedelta(microseconds=1))
        return {name: amount for name, amount in total.items() if amount}

    def inspect(self, found: Snapshot) -> None:
        """Hold the whole state against the model, and against its own sums."""
        reference = self.reference
        assert found.nodes.keys() == reference.places.keys()
        for name, node in found.nodes.items():
            self._inspect_node(name, node)
        for name, guest in reference.guests.items():
            instance = found.instances[name]
            for key in ("project", "revision", "state", "task", "os_type", "move", "deleted"):
                assert instance[key] == getattr(guest, key), f"{key} of {name}: {instance[key]}"
            assert (instance["stranded"] is not None) == (guest.stranded is not None)
            expected = {
                (h.node, h.role): {"charge": h.charge, "pins": h.pins, "devices": h.devices, "lease": h.lease}
                for h in guest.holds
            }
            assert instance["holds"] == expected
        assert found.instances.keys() == reference.guests.keys()
        assert found.parked == {id: blocking for id, (_, blocking) in self.parked.items()}
        self._inspect_entries(found)

    def _inspect_node(self, name: str, node: Json) -> None:
        reference = self.reference
        assert node["used"] == {counter: n for counter, n in reference.used(name).items() if n}
        assert all(type(amount) is int and amount > 0 for amount in node["used"].values())
        assert node["failed_builds"] == reference.places[name].failed_builds
        held = {id: guest.on(name) for id, guest in reference.guests.items() if guest.on(name)}
        assert node["pinned"] == {cpu: id for id, sides in held.items() for side in sides for cpu in side.pins}
        assert node["held"] == {a: id for id, sides in held.items() for side in sides for a in side.devices}
        waiting = [id for id, (where, blocking) in self.parked.items() if where == name and blocking]
        assert node["parked"] == len(waiting)

    def _inspect_entries(self, found: Snapshot) -> None:
        """Rebuild every node from the entries alone."""
        used: dict[str, Amounts] = {name: {} for name in found.nodes}
        last: dict[tuple[str, str], Json] = {}
        for entry in found.entries:
            amounts = used.setdefault(entry["node"], {})
            for counter, delta, after in zip(entry["counters"], entry["deltas"], entry["used_after"], strict=True):
                amounts[counter] = amounts.get(counter, 0) + delta
                assert amounts[counter] == after >= 0
            last[entry["node"], entry["instance"]] = entry
        for name, amounts in used.items():
            stored = found.nodes[name]["used"] if name in found.nodes else {}
            assert {counter: n for counter, n in amounts.items() if n} == stored
        for what, key in (("pins", "pinned"), ("devices", "held")):
            rebuilt: dict[str, dict[Any, str]] = {name: {} for name in used}
            for (node_name, instance), entry in last.items():
                rebuilt[node_name] |= dict.fromkeys(entry[what] or (), instance)
            for name, node in found.nodes.items():
                assert rebuilt[name] == node[key]
