"""Holds what the pool did against what it should have done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import asyncpg

from deploy.lib.stack import Stack
from tests.driver.model import Expected, Model
from tests.driver.traffic import Listener

LEFT = """
SELECT (SELECT count(*) FROM nodeledger.outbox) AS unpublished,
       (SELECT count(*) FROM nodeledger.parked_command) AS parked,
       (SELECT count(*) FROM nodeledger.attempt) AS attempts,
       (SELECT count(*) FROM nodeledger.dead_letter) AS dead
"""


async def outcome_faults(
    connection: asyncpg.Connection, expected: Mapping[str, Expected], order: Sequence[str], listener: Listener
) -> list[str]:
    """Ids without their one outcome, with another than the model's, or answered out of their node's order."""
    rows = await connection.fetch("SELECT command::text, status, codes, node, at, outcome FROM nodeledger.outcome_view")
    stored = {row["command"]: row for row in rows}
    faults = [f"{command} has no outcome" for command in expected if command not in stored]
    faults += [f"{command} was never sent" for command in stored if command not in expected]
    for command, answer in expected.items():
        row = stored.get(command)
        if row is None:
            continue
        got = Expected(row["status"], frozenset(row["codes"]))
        if got != answer:
            faults.append(f"{command} on {row['node']}: {got} instead of {answer}")
        heard = listener.finals.get(command, set())
        if len(heard) != 1 or json.loads(next(iter(heard)))["status"] != row["status"]:
            faults.append(f"{command}: {len(heard)} different final outcomes were published")
    return faults + list(_order_faults(stored, order))


def _order_faults(stored: Mapping[str, Any], order: Iterable[str]) -> Iterator[str]:
    last: dict[str, tuple[Any, str]] = {}
    for command in order:
        row = stored.get(command)
        if row is None:
            continue
        node = row["node"]
        before = last.get(node)
        if before is not None and row["at"] < before[0]:
            yield f"{command} on {node} was answered before {before[1]}, which was sent before it"
        last[node] = (row["at"], command)


async def state_faults(connection: asyncpg.Connection, model: Model) -> list[str]:
    """Nodes whose charge, and instances whose holdings, are not the model's."""
    charged: dict[str, dict[str, int]] = {name: {} for name in model.nodes}
    for row in await connection.fetch("SELECT node, resource, used FROM nodeledger.node_usage WHERE used <> 0"):
        charged.setdefault(row["node"], {})[row["resource"]] = row["used"]
    faults = [
        f"{node} is charged {charged.get(node)} instead of {model.used(node)}"
        for node in charged.keys() | model.nodes.keys()
        if charged.get(node) != model.used(node)
    ]
    rows = await connection.fetch("SELECT instance::text, node, role FROM nodeledger.allocation_view")
    held = Counter((row["instance"], row["node"], row["role"]) for row in rows)
    wanted = Counter((name, one.node, one.role) for name, guest in model.guests.items() for one in guest.held)
    faults += [f"held and should not be: {one}" for one in (held - wanted)]
    faults += [f"should be held: {one}" for one in (wanted - held)]
    return faults


async def left_over(connection: asyncpg.Connection) -> dict[str, int]:
    """What the database still holds of unfinished work."""
    row = await connection.fetchrow(LEFT)
    assert row is not None
    return dict(row)


def unacknowledged(stack: Stack, vhost: str) -> int:
    """Messages that the broker still has for the pool, ready or not."""
    said = stack.rabbitmq.control("list_queues", "--vhost", vhost, "--no-table-headers", "name", "messages")
    rows = [line.split("\t") for line in said.splitlines() if line.startswith("nodeledger.")]
    assert rows, said
    return sum(int(count) for _, count in rows)
