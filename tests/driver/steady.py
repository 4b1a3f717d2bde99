"""Traffic that goes on while something happens to the pool: a claim to every node, over and over."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

import aio_pika
import asyncpg

from schemas.routing import COMMAND_EXCHANGE, command_key, shard_of
from tests.driver.run import Run
from tests.driver.traffic import body_of, publish

_START = "2026-01-01T00:00:00Z"
_INVENTORY = {"cpus": "0-1023", "memory_mib": 2**34, "disk_gib": 2**20}
_POLICY = {"ratios": {"vcpus": "1000.0"}}
_APPLIED_IN_ORDER = """
SELECT node, array_agg(command ORDER BY seq) AS commands
FROM (SELECT node, command::text, min(seq) AS seq FROM nodeledger.entry_view
      WHERE kind = 'claim' GROUP BY node, command) AS first
GROUP BY node
"""
_TWICE = """
SELECT command::text FROM nodeledger.entry_view WHERE kind = 'claim'
GROUP BY command, resource HAVING count(*) > 1
"""


def one_node_a_shard(shards: int = 16) -> list[str]:
    """Names of nodes of which each shard has exactly one."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < shards:
        found.setdefault(shard_of(f"cn-{number}", shards), f"cn-{number}")
        number += 1
    return [name for _, name in sorted(found.items())]


def stamped(kind: str, node: str, **fields: Any) -> dict[str, Any]:
    """A command with a new id."""
    return {"version": 1, "id": str(uuid4()), "kind": kind, "node": node, "issued_at": _START, **fields}


def put(node: str) -> dict[str, Any]:
    """Register a node that never gets full."""
    return stamped("node.put", node, inventory=_INVENTORY, policy=_POLICY)


def claim(node: str) -> dict[str, Any]:
    """Claim a small instance."""
    return stamped("claim", node, instance=str(uuid4()), project="acme", resources={"vcpus": 1, "memory_mib": 16})


@dataclass(slots=True)
class Steady:
    """Sends a claim to each node every so many seconds while it is entered, and knows when which was sent."""

    run: Run
    nodes: list[str]
    every_seconds: float
    sent: list[tuple[float, str, str]] = field(default_factory=list)
    """When a claim was sent, its id and its node."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        puts = [put(node) for node in self.nodes]
        await publish(self.run.vhost.url, [body_of(one) for one in puts])
        listener = self.run.listener
        assert await listener.until(lambda: {one["id"] for one in puts} <= listener.finals.keys(), 60)
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Send no more; all that is noted as sent has been."""
        assert self._task is not None
        self._stopping.set()
        await self._task

    async def all_answered(self, seconds: float) -> bool:
        """Stop sending and wait for what is still unanswered."""
        await self.stop()
        listener = self.run.listener
        return await listener.until(lambda: all(one in listener.finals for _, one, _ in self.sent), seconds)

    async def served_since(self, moment: float, seconds: float) -> dict[str, float]:
        """For each node, how long after the moment the first outcome came of a claim that was sent after it."""
        sent: dict[str, str] = {}

        def all_heard() -> bool:
            for at, one, node in self.sent:
                if at > moment:
                    sent.setdefault(node, one)
            return len(sent) == len(self.nodes) and all(one in self.run.listener.finals for one in sent.values())

        assert await self.run.listener.until(all_heard, seconds), "shards are not served any more"
        firsts: dict[str, float] = {}
        for at, one, _, node in self.run.listener.heard:
            if sent.get(node) == one:
                firsts.setdefault(node, at - moment)
        return firsts

    async def _send(self) -> None:
        connection = await aio_pika.connect(self.run.vhost.url)
        async with connection:
            exchange = await (await connection.channel()).get_exchange(COMMAND_EXCHANGE, ensure=False)
            began, rounds = time.monotonic(), 0
            while not self._stopping.is_set():
                for node in self.nodes:
                    command = claim(node)
                    self.sent.append((time.monotonic(), command["id"], node))
                    message = aio_pika.Message(body_of(command)[1], delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                    await exchange.publish(message, command_key(shard_of(node)))
                rounds += 1
                await asyncio.sleep(max(0.0, began + rounds * self.every_seconds - time.monotonic()))


async def claim_faults(run: Run, sent: list[tuple[str, str]]) -> list[str]:
    """What is wrong with claims, given with their nodes in the order sent: each applies once, each node in order."""
    connection = await asyncpg.connect(run.database.superuser_url)
    try:
        rows = {row["node"]: row["commands"] for row in await connection.fetch(_APPLIED_IN_ORDER)}
        faults = [f"{row['command']} was charged twice" for row in await connection.fetch(_TWICE)]
        dead = await connection.fetchval("SELECT count(*) FROM nodeledger.dead_letter")
    finally:
        await connection.close()
    if dead:
        faults.append(f"{dead} dead letters")
    wanted: dict[str, list[str]] = {}
    for one, node in sent:
        wanted.setdefault(node, []).append(one)
    faults += [
        f"{node}: {len(rows.get(node, []))} claims applied of {len(all_sent)}, or not in their order"
        for node, all_sent in wanted.items()
        if rows.get(node) != all_sent
    ]
    verified = await run.operator.run("verify")
    if verified.status != 0:
        faults.append(f"verify: {verified.out}{verified.err}")
    return faults
