"""The real ledger under the model: Postgres, two workers' caches that take turns, and a clock that can be moved.

The worker's statements find ``now`` and ``clock_timestamp`` in a schema of the
test's own, which comes first in the search path: time passes as the model says,
and nothing else is replaced.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

import asyncpg

from deploy.lib.stack import Stack
from tests.commits import commit
from tests.model.mishaps import Dying, Slow, Unsettled
from tests.reference.inspection import Snapshot
from tests.reference.stored import read_snapshot
from tests.servers import new_database
from worker.accounting.state.view import Facts
from worker.engine.intake import Item
from worker.engine.ports import Lease, Parked
from worker.engine.result import Result, read_keys
from worker.ledger.history import PastNode, node_at, use_over_time
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger
from worker.ledger.verify import verify

WORKERS = 2

CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.shift (by interval NOT NULL);
INSERT INTO clock.shift VALUES ('0');
CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + s.by FROM clock.shift AS s';
CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock.clock_timestamp()';
GRANT USAGE ON SCHEMA clock TO PUBLIC;
GRANT SELECT ON clock.shift TO PUBLIC;
"""
EMPTY = """
TRUNCATE nodeledger.node, nodeledger.node_profile, nodeledger.former_name, nodeledger.instance, nodeledger.allocation,
    nodeledger.pinned_cpu, nodeledger.held_device, nodeledger.entry, nodeledger.command, nodeledger.outbox,
    nodeledger.parked_command, nodeledger.probe, nodeledger.attempt, nodeledger.drift, nodeledger.host_load;
UPDATE clock.shift SET by = '0';
"""


class Server:
    """A database of the model's own, used by one run after the other."""

    def __init__(self, stack: Stack) -> None:
        self.runner = asyncio.Runner()
        self._parts = AsyncExitStack()
        self.runner.run(self._open(stack))

    async def _open(self, stack: Stack) -> None:
        database = await self._parts.enter_async_context(new_database(stack))
        self.owner = await asyncpg.connect(database.superuser_url)
        self._parts.push_async_callback(self.owner.close)
        await self.owner.execute(CLOCK)
        await self.owner.execute(f"ALTER DATABASE {database.name} SET search_path = clock, pg_catalog")
        self.pool = await connect_pool(database.worker_url, min_size=2, max_size=4)
        self._parts.push_async_callback(self.pool.close)

    def close(self) -> None:
        self.runner.run(self._parts.aclose())
        self.runner.close()


@dataclass
class PostgresModelLedger:
    """See :class:`tests.model.path.ModelLedger`."""

    server: Server
    park_deadline: float
    may_poison: bool = True
    ledgers: list[PostgresLedger] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        self.ledgers = [PostgresLedger(self.server.pool) for _ in range(WORKERS)]
        self._run(self.server.owner.execute(EMPTY))

    def _run(self, work: Any) -> Any:
        return self.server.runner.run(work)

    def commit(self, items: list[Item], facts: Facts, *, dies: bool) -> list[Result]:
        """Two workers meet: one does what is first in each lane while the other decides what follows, or the same."""
        self.turns += 1
        one, other = (self.ledgers[(self.turns + n) % WORKERS] for n in range(WORKERS))
        if dies:
            return cast(list[Result], self._run(self._commit(items, facts, Dying(one))))
        first = list({item.command.node: item for item in reversed(items)}.values())
        rest = [item for item in items if item not in first]
        if not rest or _share_instances(first, rest):
            first = rest = items
        return cast(list[Result], self._run(self._conflict(first, rest, facts, one, other)))

    async def _conflict(
        self, first: list[Item], rest: list[Item], facts: Facts, one: PostgresLedger, other: PostgresLedger
    ) -> list[Result]:
        """What was decided; where both did the same, what waits or fails is as the slower one left it."""
        faster: list[Result] = []
        there = await self._there(rest)

        async def meanwhile() -> None:
            faster.extend(await self._commit([replace(item) for item in first], _copied(facts), other))
            if rest is not first and (await self._there(rest) != there or any(map(_holds_up, faster))):
                raise Unsettled

        try:
            slower = await self._commit(rest, facts, Slow(one, meanwhile))
        except Unsettled:
            return [*faster, Result(held=rest)]
        if rest is first:
            faster = [replace(result, held=[], inquiries={}, dead_lettered=[], stuck=set()) for result in faster]
        return [*faster, *slower]

    async def _there(self, items: list[Item]) -> set[object]:
        """Which instances and nodes exist.

        Of one that was not there, no worker can tell that another has made it
        meanwhile; a worker that decides a claim has decided the node's ``node.put`` before it.
        """
        want = read_keys(items, Facts())
        found = "SELECT id FROM nodeledger.instance WHERE id = ANY ($1)"
        rows = await self.server.owner.fetch(found, list(want.instances))
        nodes = "SELECT name FROM nodeledger.node WHERE name = ANY ($1)"
        names = await self.server.owner.fetch(nodes, list(want.nodes))
        return {*(row["id"] for row in rows), *(row["name"] for row in names)}

    async def _commit(self, items: list[Item], facts: Facts, ledger: Any) -> list[Result]:
        return await commit(ledger, items, facts, timedelta(seconds=self.park_deadline))

    def parked(self, node: str) -> list[Parked]:
        return cast(list[Parked], self._run(self.ledgers[0].parked(node, 1000)))

    def due_leases(self) -> list[Lease]:
        return cast(list[Lease], self._run(self.ledgers[0].due_leases(1000)))

    def now(self) -> datetime:
        return cast(datetime, self._run(self.server.owner.fetchval("SELECT clock.now()")))

    def advance(self, seconds: float) -> None:
        self._run(self.server.owner.execute(f"UPDATE clock.shift SET by = by + interval '{seconds} seconds'"))

    def snapshot(self) -> Snapshot:
        return cast(Snapshot, self._run(read_snapshot(self.server.owner)))

    def differences(self) -> list[str]:
        """What the product's own verification finds."""

        async def collect() -> list[str]:
            return [str(difference) async for difference in verify(self.server.pool)]

        return cast(list[str], self._run(collect()))

    def node_at(self, node: str, at: datetime) -> PastNode:
        return cast(PastNode | None, self._run(self._reading(node_at, node, at))) or PastNode(node, at, {}, {})

    def use_over_time(self, project: str, since: datetime, until: datetime) -> dict[str, Any]:
        return cast(dict[str, Any], self._run(self._reading(use_over_time, project, since, until)))

    async def _reading(self, read: Any, *arguments: object) -> Any:
        return await read(self.server.owner, *arguments)

    def close(self) -> None:
        """The server stays for the next run."""


def _copied(facts: Facts) -> Facts:
    """What one worker was told, of which it takes and replaces as it decides."""
    return Facts(dict(facts.observations), dict(facts.domains), dict(facts.listings), dict(facts.sights))


def _holds_up(result: Result) -> bool:
    return bool(result.held or result.dead_lettered or result.stuck)


def _share_instances(first: list[Item], rest: list[Item]) -> bool:
    """Whether commands of different nodes are about the same instance: nothing says which of them comes first."""
    about = [(item.command.node, read_keys([item], Facts()).instances) for item in first]
    return any(
        item.command.node != node and read_keys([item], Facts()).instances & instances
        for item in rest
        for node, instances in about
    )
