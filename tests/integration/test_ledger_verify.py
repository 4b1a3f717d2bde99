from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.integration.ledger_seed import seed
from tests.servers import Database
from worker.ledger.pool import connect_pool
from worker.ledger.verify import Difference, verify

pytestmark = pytest.mark.integration


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[asyncpg.Pool]:
    await seed(database.worker_url)
    pool = await connect_pool(database.worker_url, max_size=2)
    yield pool
    await pool.close()


async def differences(pool: asyncpg.Pool) -> list[Difference]:
    return [difference async for difference in verify(pool)]


async def test_a_ledger_that_agrees_with_itself_has_no_differences(ledger: asyncpg.Pool) -> None:
    assert await differences(ledger) == []


@pytest.mark.parametrize(
    ("damage", "rules"),
    [
        ("UPDATE nodeledger.node SET used[1] = used[1] + 1 WHERE name = 'cn-1'", {"use"}),
        ("UPDATE nodeledger.node SET counters = '{}', used = '{}' WHERE name = 'cn-2'", {"use"}),
        ("UPDATE nodeledger.entry SET deltas[1] = deltas[1] + 1 WHERE kind = 'delete'", {"use", "chain"}),
        ("UPDATE nodeledger.entry SET used_after[1] = used_after[1] + 1 WHERE kind = 'delete'", {"chain"}),
        ("DELETE FROM nodeledger.entry WHERE kind = 'migrate'", {"use"}),
        (
            "UPDATE nodeledger.allocation SET charge = '{\"vcpus\": 3}' WHERE role = 'move_destination'",
            {"use", "charge"},
        ),
        ("UPDATE nodeledger.allocation SET full_charge = '{}' WHERE role = 'active'", {"charge"}),
        ("DELETE FROM nodeledger.pinned_cpu WHERE cpu = 4", {"holding"}),
        ("INSERT INTO nodeledger.pinned_cpu SELECT id, 9, gen_random_uuid() FROM nodeledger.node", {"holding"}),
        ("UPDATE nodeledger.held_device SET instance = gen_random_uuid()", {"holding"}),
        ("UPDATE nodeledger.allocation SET devices = '{}'", {"holding"}),
        ("UPDATE nodeledger.entry SET pins = '{}'", {"holding"}),
        ("UPDATE nodeledger.allocation SET role = 'active' WHERE role = 'move_source'", {"instance", "charge"}),
        ("UPDATE nodeledger.instance SET move = NULL", {"instance"}),
        ("UPDATE nodeledger.instance SET deleted_at = now()", {"instance"}),
        ("UPDATE nodeledger.instance SET move = 'migrate' WHERE move IS NULL", {"instance"}),
        ("DELETE FROM nodeledger.node WHERE name = 'cn-2'", {"use", "instance", "charge"}),
        ("TRUNCATE nodeledger.parked_command", {"parked"}),
        ("UPDATE nodeledger.node SET parked = parked + 1", {"parked"}),
        ("UPDATE nodeledger.parked_command SET command = gen_random_uuid()", {"parked"}),
        (
            "ALTER TABLE nodeledger.command DISABLE TRIGGER USER; UPDATE nodeledger.command SET status = 'dead'",
            {"parked"},
        ),
    ],
)  # fmt: skip
async def test_damage_is_found_and_named(
    ledger: asyncpg.Pool, database: Database, damage: str, rules: set[str]
) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(damage)
    await owner.close()
    found = {difference.rule for difference in await differences(ledger)}
    assert found
    assert found <= rules
    assert next(iter(rules & {"use", "holding", "instance", "parked"} or rules)) in found
