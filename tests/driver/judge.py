"""Holds what the pool did against what it should have done, by the reference model of the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg

from deploy.lib.stack import Stack
from tests.driver.traffic import Listener
from tests.reference.inspection import differences
from tests.reference.judge import judge
from tests.reference.ledger import Reference, World
from tests.reference.room import Json
from tests.reference.stored import read_snapshot

UNREACHABLE: Final = "hypervisor_unreachable"

_LEFT: Final = """
SELECT (SELECT count(*) FROM nodeledger.outbox) AS unpublished,
       (SELECT count(*) FROM nodeledger.parked_command) AS parked,
       (SELECT count(*) FROM nodeledger.attempt) AS attempts
"""
_STORED: Final = "SELECT command::text, status, outcome FROM nodeledger.outcome_view"
_LETTERS: Final = "SELECT command::text, reason FROM nodeledger.dead_letter_view"


@dataclass(slots=True)
class Judgement:
    """Judges final outcomes phase by phase, in the order in which they were decided."""

    reference: Reference = field(default_factory=lambda: Reference(World()))
    sent: dict[str, Json] = field(default_factory=dict)
    """Every command by its id, in the order of the messages."""
    astray: set[str] = field(default_factory=set)
    """The commands of which a copy was sent on a wrong shard."""
    faults: list[str] = field(default_factory=list)

    def settle(self, commands: Mapping[str, Json], listener: Listener) -> None:
        """Hold the outcomes of a phase against the model, and take over what they changed."""
        heard = {id: json.loads(min(listener.finals[id])) for id in commands if id in listener.finals}
        decided = sorted(heard, key=lambda id: datetime.fromisoformat(heard[id]["at"]))  # stable: of a batch as sent
        parked = {id for _, id, status, _ in listener.heard if status == "parked"}
        for id in decided:
            try:
                self._judge(commands[id], heard[id], waited=id in parked)
            except (AssertionError, KeyError) as error:
                self.faults.append(f"{id} on {commands[id]['node']}: {error!r}")
        self.faults += self._order_faults(commands, heard)

    def _judge(self, command: Json, outcome: Json, *, waited: bool) -> None:
        world = self.reference.world
        world.silent = {command["node"]} & world.inventories.keys() if _met_silence(command, outcome) else set()
        refused_as_closed = any(reason["code"] == "node_disabled" for reason in outcome["reasons"])
        self.reference.held_up = set() if refused_as_closed else world.silent
        judge(self.reference, command, outcome, waited=waited)

    def _order_faults(self, commands: Mapping[str, Json], heard: Mapping[str, Json]) -> Iterator[str]:
        """Commands that were decided before one that stood before them in their node's queue."""
        leaving = {one["instance"] for one in commands.values() if one.get("reason") == "evacuate"}
        last: dict[str, tuple[datetime, str]] = {}
        for id, command in commands.items():
            node = command["node"]
            if id not in heard or (node in self.reference.world.inventories and _may_go_ahead(command, leaving)):
                continue
            at = datetime.fromisoformat(heard[id]["at"])
            before = last.get(node)
            if before is not None and at < before[0]:
                yield f"{id} on {node} was answered before {before[1]}, which was sent before it"
            last[node] = (at, id)

    def outcome_faults(self, stored: Mapping[str, Any], listener: Listener) -> Iterator[str]:
        """Ids without their one outcome, or with another one than was published."""
        for command in stored.keys() - self.sent.keys():
            yield f"{command} was never sent"
        for command in self.sent:
            heard = listener.finals.get(command, set())
            if command not in stored:
                yield f"{command} has no outcome"
            elif len(heard) != 1 or json.loads(min(heard)) != json.loads(stored[command]["outcome"]):
                yield f"{command}: {len(heard)} different final outcomes were published"


def _may_go_ahead(command: Json, leaving: set[str]) -> bool:
    """Whether a command may be decided before those that wait for its node's hypervisor, or alone after them."""
    kind = command["kind"]
    return (
        bool(command.get("dry_run") or command.get("candidates"))
        or kind in {"node.put", "node.remove", "audit"}
        or (kind in {"migrate", "confirm", "revert"} and command["instance"] in leaving)
        or (kind == "delete" and command.get("verify") is not False)
    )


def _met_silence(command: Json, outcome: Json) -> bool:
    """Whether an outcome says that a hypervisor did not answer: taken at its word, as nobody saw it asked."""
    passed_over = bool(command.get("candidates")) and outcome["node"] != command["node"]
    return passed_over or any(reason["code"] == UNREACHABLE for reason in outcome["reasons"])


async def stored_faults(connection: asyncpg.Connection, judgement: Judgement, listener: Listener) -> list[str]:
    """What is wrong with the outcomes, the letters and the state in the database at the end."""
    stored = {row["command"]: row for row in await connection.fetch(_STORED)}
    faults = [*judgement.faults, *judgement.outcome_faults(stored, listener)]
    faults += differences(judgement.reference, await read_snapshot(connection))
    letters = {(row["command"], row["reason"]) for row in await connection.fetch(_LETTERS)}
    wanted = {(command, "misrouted") for command in judgement.astray}
    faults += [f"dead letter that should not be: {letter}" for letter in letters - wanted]
    return faults + [f"no dead letter: {letter}" for letter in wanted - letters]


async def left_over(connection: asyncpg.Connection) -> dict[str, int]:
    """What the database still holds of unfinished work."""
    row = await connection.fetchrow(_LEFT)
    assert row is not None
    return dict(row)


def unacknowledged(stack: Stack, vhost: str) -> int:
    """Messages that the broker still has for the pool, ready or not."""
    said = stack.rabbitmq.control("list_queues", "--vhost", vhost, "--no-table-headers", "name", "messages")
    rows = [line.split("\t") for line in said.splitlines() if line.startswith("nodeledger.")]
    assert rows, said
    return sum(int(count) for _, count in rows)
