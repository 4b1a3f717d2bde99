"""Attempts at commands whose worker dies, and leases that ran out, on the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.commits import commit
from tests.integration.test_ledger_conflicts import NODES, claim, item, statuses
from tests.model.mishaps import Dying
from tests.model.path import Crash
from tests.servers import Database
from worker.accounting.state.view import Facts
from worker.engine.intake import Item
from worker.engine.ports import Lease
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger

pytestmark = pytest.mark.integration

GUEST = UUID(int=1)


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    made = await connect_pool(database.worker_url, min_size=2, max_size=4)
    inventory = {"cpus": "0-3", "memory_mib": 65_536}
    await commit(PostgresLedger(made), [item("node.put", node, inventory=inventory) for node in NODES])
    await commit(PostgresLedger(made), [claim("cn-1", GUEST)])
    await made.execute(
        "UPDATE nodeledger.node_profile SET hypervisor = 'test:///default'"
        " WHERE node_id = (SELECT id FROM nodeledger.node WHERE name = 'cn-1')"
    )
    yield made
    await made.close()


def redelivered(command: UUID) -> Item:
    """A delete that asks its hypervisor, as the next worker has it."""
    again = item("delete", "cn-1", command=command, instance=str(GUEST), verify=True)
    assert again.delivery is not None
    again.delivery.redelivered = True
    return again


async def attempts(pool: asyncpg.Pool, command: UUID) -> int | None:
    found: int | None = await pool.fetchval("SELECT attempts FROM nodeledger.attempt WHERE command = $1", command)
    return found


async def test_a_command_that_waits_for_an_answer_is_innocent_however_often_its_worker_is_killed(
    pool: asyncpg.Pool,
) -> None:
    command = uuid4()
    for _ in range(5):
        (result,) = await commit(PostgresLedger(pool), [redelivered(command)])
        assert (len(result.held), result.dead_lettered) == (1, [])
        assert await attempts(pool, command) == 0
    facts = Facts(domains={("cn-1", GUEST): "absent"})
    assert statuses(await commit(PostgresLedger(pool), [redelivered(command)], facts)) == ["applied"]
    assert await attempts(pool, command) is None


async def test_a_command_that_kills_its_worker_once_it_is_answered_is_put_away(pool: asyncpg.Pool) -> None:
    command = uuid4()
    facts = Facts(domains={("cn-1", GUEST): "absent"})
    for number in range(3):
        (asking,) = await commit(PostgresLedger(pool), [redelivered(command)])
        assert await attempts(pool, command) == number
        (waiting,) = asking.held
        with pytest.raises(Crash):
            await commit(Dying(PostgresLedger(pool)), [waiting], facts)
        assert await attempts(pool, command) == number + 1
    (result,) = await commit(PostgresLedger(pool), [redelivered(command)])
    assert [reason for _, reason, _ in result.dead_lettered] == ["poison"]


async def test_leases_that_ran_out_are_read_in_pages_and_none_is_left_out(pool: asyncpg.Pool) -> None:
    guests = [UUID(int=number) for number in range(10, 30)]
    await commit(
        PostgresLedger(pool), [claim(NODES[n % 2 + 1], guest, lease_seconds=9) for n, guest in enumerate(guests)]
    )
    ends = datetime(2026, 1, 1, tzinfo=UTC)
    await pool.execute(
        "UPDATE nodeledger.allocation SET lease_expires_at = $1 WHERE lease_expires_at IS NOT NULL", ends
    )
    await pool.execute(
        'INSERT INTO nodeledger.allocation SELECT (jsonb_populate_record(a, \'{"role": "move_source"}\')).* '
        "FROM nodeledger.allocation AS a WHERE a.lease_expires_at IS NOT NULL"
    )  # of instances that move: those leases wait
    ledger, last = PostgresLedger(pool), None
    found: list[Lease] = []
    while page := await ledger.due_leases(3, last):
        found += page
        last = page[-1]
    assert [lease.instance for lease in found] == guests
    assert {lease.expired_at for lease in found} == {ends}
