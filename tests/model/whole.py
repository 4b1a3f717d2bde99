"""Whole workers under the model: processes that are killed, a real broker, a real hypervisor, the real ledger.

Commands are sent in bursts for one node at a time, so that their order is the
model's. What was decided is read back from the database in the order of its
decisions, in the same snapshot as the state it is held against.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import aio_pika
import asyncpg
from aio_pika.abc import AbstractIncomingMessage

from deploy.lib.stack import Stack
from schemas import shard_of
from schemas.routing import COMMAND_EXCHANGE, OUTCOME_EXCHANGE, command_key
from tests.driver.pool import Worker
from tests.integration.cli_harness import shell
from tests.model.bench import Bench
from tests.model.fleet import HYPERVISOR, MOVED_HYPERVISOR
from tests.model.path import ModelLedger
from tests.model.postgres import CLOCK, EMPTY
from tests.reference.inspection import Snapshot
from tests.reference.room import Json
from tests.reference.stored import read_snapshot
from tests.servers import Vhost, new_database
from worker.hypervisor import Hypervisors

WORKERS = 2
DEADLINE_SECONDS = 60.0


class Installation:
    """Two workers on a database and a virtual host of their own, used by one run after the other."""

    def __init__(self, stack: Stack, vhost: Vhost, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.answered: Counter[str] = Counter()
        self.kills = 0
        self._came = asyncio.Event()
        self._parts = AsyncExitStack()
        try:
            self.runner.run(self._open(stack, vhost, folder))
        except BaseException:
            self.close()  # what was started must not outlive the test
            raise

    async def _open(self, stack: Stack, vhost: Vhost, folder: Path) -> None:
        database = await self._parts.enter_async_context(new_database(stack))
        self.owner = await asyncpg.connect(database.superuser_url)
        self._parts.push_async_callback(self.owner.close)
        await self.owner.execute(CLOCK)
        await self.owner.execute(f"ALTER DATABASE {database.name} SET search_path = clock, pg_catalog")
        hypervisors = Hypervisors()
        await hypervisors.start()
        inventory = await hypervisors.inventory("gamma", HYPERVISOR)
        self.inventory: Json = json.loads(inventory.model_dump_json(exclude_defaults=True))
        await hypervisors.close()
        settings = shell(database, vhost).having(outbox_sweep_seconds="1").environment
        self.crew = [Worker(f"worker-{number}", folder, settings) for number in range(WORKERS)]
        for worker in self.crew:
            await worker.start()
            self._parts.push_async_callback(worker.kill)
        for worker in self.crew:
            await worker.ready()
        connection = await aio_pika.connect(vhost.url)
        self._parts.push_async_callback(connection.close)
        channel = await connection.channel()
        self.commands = await channel.get_exchange(COMMAND_EXCHANGE)
        outcomes = await channel.declare_queue(exclusive=True)
        await outcomes.bind(OUTCOME_EXCHANGE, "#")
        await outcomes.consume(self._count, no_ack=True)

    async def _count(self, message: AbstractIncomingMessage) -> None:
        self.answered[str(message.message_id)] += 1
        self._came.set()

    async def send(self, bodies: list[bytes]) -> None:
        for body in bodies:
            key = command_key(shard_of(json.loads(body)["node"]))
            message = aio_pika.Message(body, content_type="application/json", delivery_mode=2)
            await self.commands.publish(message, key)

    async def until_answered(self, wanted: Counter[str], *, any_of_them: bool = False) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (any if any_of_them else all)(self.answered[id] >= count for id, count in wanted.items()):
                self._came.clear()
                await self._came.wait()

    async def kill_one(self) -> None:
        """Kill a worker, each in its turn, and put another in its place; the other one goes on meanwhile."""
        worker = self.crew[self.kills % WORKERS]
        self.kills += 1
        await worker.kill()
        await worker.start()

    def close(self) -> None:
        self.runner.run(self._parts.aclose())
        self.runner.close()


@dataclass
class WholeLedger:
    """The clock and the state; the workers decide."""

    path: WholePath
    may_poison: bool = True

    def now(self) -> datetime:
        return cast(datetime, self.path.run(self.path.site.owner.fetchval("SELECT clock.now()")))

    def advance(self, seconds: float) -> None:
        """Time is never put back here: the order of decisions is told by their times."""
        if seconds > 0:
            shift = f"UPDATE clock.shift SET by = by + interval '{seconds} seconds'"
            self.path.run(self.path.site.owner.execute(shift))

    def snapshot(self) -> Snapshot:
        return self.path.read()

    def close(self) -> None:
        self.path.work(0)


@dataclass
class WholePath:
    """See :class:`tests.model.path.AnyPath`."""

    site: Installation
    plays_hypervisors: bool = False
    bench: Bench = field(default_factory=Bench)
    dead: list[bytes] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    burst: list[bytes] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = cast(ModelLedger, WholeLedger(self))
        self.bench.world.inventories["gamma"] = self.site.inventory
        self.run(self.site.owner.execute(EMPTY))
        self.site.answered.clear()

    def run(self, work: Any) -> Any:
        return self.site.runner.run(work)

    def publish(self, command: Json) -> None:
        if command.get("hypervisor") == MOVED_HYPERVISOR:
            command = {**command, "hypervisor": HYPERVISOR}
        body = json.dumps(command).encode()
        self.publish_body(body)
        self.sent.append(body)

    def publish_body(self, body: bytes) -> None:
        command = json.loads(body)
        if body not in self.sent and command["id"] in self.places:
            return  # another body under a known id is put away without an outcome: nothing to wait for
        if self.burst and json.loads(self.burst[0])["node"] != command["node"]:
            self.work(0)
        self.places.setdefault(command["id"], len(self.places))
        self.burst.append(body)

    def work(
        self,
        limit: int,  # noqa: ARG002 - the workers' own
        *,
        dies_in: int | None = None,
        dies_after: int | None = None,
    ) -> None:
        """Have the burst decided, whatever happens to the workers meanwhile."""
        if not self.burst:
            return
        bodies, self.burst = self.burst, []
        wanted = self.site.answered + Counter(json.loads(body)["id"] for body in bodies)
        self.run(self._have_decided(bodies, wanted, dies=dies_in is not None, dies_late=dies_after is not None))

    async def _have_decided(self, bodies: list[bytes], wanted: Counter[str], *, dies: bool, dies_late: bool) -> None:
        await self.site.send(bodies)
        if dies_late:
            await self.site.until_answered(wanted, any_of_them=True)
        if dies or dies_late:
            await self.site.kill_one()
        await self.site.until_answered(wanted)

    def read(self) -> Snapshot:
        return cast(Snapshot, self.run(self._read()))

    async def _read(self) -> Snapshot:
        """Judge what was decided since, in its order, and return the state at that very moment."""
        owner = self.site.owner
        async with owner.transaction(isolation="repeatable_read", readonly=True):
            rows = await owner.fetch("SELECT id, kind, node, instance, outcome, at FROM nodeledger.command ORDER BY at")
            found = await read_snapshot(owner)
        fresh = [row for row in rows if str(row["id"]) not in self.bench.outcomes]
        commands = {json.loads(body)["id"]: json.loads(body) for body in self.sent}
        for row in sorted(fresh, key=lambda row: (row["at"], self.places.get(str(row["id"]), -1))):
            made_here = {
                "id": str(row["id"]),
                "kind": row["kind"],
                "node": row["node"],
                "instance": str(row["instance"]),
            }
            self.bench.judge(commands.get(str(row["id"]), made_here), row["outcome"])
        return found

    def probe(self, node: str, address: str | None) -> None:
        """The workers do it."""

    def expire_leases(self) -> None:
        """The workers do it."""

    def replay(self, which: int) -> None:
        """Nothing is put away here."""

    def misroute(self, body: bytes) -> None:
        """Everybody knows the shards here."""
