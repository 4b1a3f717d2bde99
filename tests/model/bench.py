"""The judge's bench: every outcome is held against the reference model, and the state against its sums."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.published import published
from tests.reference.inspection import Snapshot, differences
from tests.reference.judge import judge
from tests.reference.ledger import Reference, World, together
from tests.reference.room import Amounts, Json


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
        assert outcome["sequence"] == 1 + (0 if known is None else json.loads(known)["sequence"]), "counted wrong"
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
        verdict = judge(self.reference, command, outcome, waited=parked)
        if status == "applied":
            self.charged.append((now, "blue", self._blue()))
            self.past.append((now, {name: self.reference.used(name) for name in self.reference.places}))
        self._settled(command, text, blocking=verdict.status == "parked")

    def _comes_in_turn(self, command: str) -> None:
        """What waited behind others is not decided before them."""
        node, blocking = self.parked[command]
        waiting = [id for id, (where, blocks) in self.parked.items() if where == node and blocks]
        assert not blocking or waiting[0] == command, "went ahead of what was parked before it"

    def _waits(self, command: Json) -> str | None:
        """The parked command that holds this one back, if one does."""
        if command.get("dry_run") or command["kind"] in {"expire", "node.put", "node.remove", "audit"}:
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
        parked = [(id, node, blocking) for id, (node, blocking) in self.parked.items()]
        assert not (wrong := list(differences(self.reference, found, parked))), wrong
