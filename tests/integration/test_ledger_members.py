from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.servers import Database
from worker.ledger.members import Members, ShardsDifferError, agree_on_shards
from worker.ledger.pool import connect_pool

pytestmark = pytest.mark.integration

SHARDS = 16


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    made = await connect_pool(database.worker_url, max_size=8)
    yield made
    await made.close()


async def join(pool: asyncpg.Pool, count: int) -> list[Members]:
    members = [Members(pool, uuid4(), f"worker-{number}") for number in range(count)]
    await asyncio.gather(*(member.heartbeat() for member in members))
    return members


async def test_all_members_come_to_one_plan_at_the_same_time(pool: asyncpg.Pool) -> None:
    members = await join(pool, 5)
    plans = await asyncio.gather(*(member.assign(SHARDS) for member in members))
    assert all(plan == plans[0] for plan in plans)
    assert sorted(Counter(plans[0].values()).values()) == [3, 3, 3, 3, 4]


async def test_who_joins_gets_a_fair_share_and_nobody_else_moves(pool: asyncpg.Pool) -> None:
    members = await join(pool, 3)
    before = await members[0].assign(SHARDS)
    (late,) = await join(pool, 1)
    after = await late.assign(SHARDS)
    newcomer = {member.id for member in await late.alive()} - set(before.values())
    assert sum(owner in newcomer for owner in after.values()) == 4
    assert all(after[shard] in {owner, *newcomer} for shard, owner in before.items())


async def test_a_worker_that_only_says_it_is_alive_gives_up_a_session_that_began_read_only(database: Database) -> None:
    setting = f"ALTER DATABASE {database.name} {{}} default_transaction_read_only"
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(setting.format("SET") + " = on")
    pool = await connect_pool(database.worker_url, max_size=2)
    try:
        member = Members(pool, uuid4(), "worker")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await member.heartbeat()
        await owner.execute(setting.format("RESET"))
        await member.heartbeat()
    finally:
        await pool.close()
        await owner.close()


async def test_who_leaves_or_falls_silent_is_replaced(pool: asyncpg.Pool) -> None:
    first, second, third = await join(pool, 3)
    await first.assign(SHARDS)
    await second.leave()
    await pool.execute("UPDATE nodeledger.worker SET seen_at = now() - interval '1 minute' WHERE name = 'worker-2'")
    plan = await first.assign(SHARDS)
    assert len(set(plan.values())) == 1
    await third.heartbeat()
    assert len(set((await third.assign(SHARDS)).values())) == 2


async def test_fewer_shards_forget_the_rest(pool: asyncpg.Pool) -> None:
    (member,) = await join(pool, 1)
    await member.assign(SHARDS)
    await member.assign(4)
    assert await pool.fetchval("SELECT count(*) FROM nodeledger.shard") == 4


async def test_a_worker_with_another_number_of_shards_is_refused(pool: asyncpg.Pool) -> None:
    async def agree(shards: int) -> int:
        async with pool.acquire() as connection:
            await agree_on_shards(connection, shards)
        return shards

    results = await asyncio.gather(*(agree(shards) for shards in (4, 8) * 3), return_exceptions=True)
    refused = [result for result in results if isinstance(result, ShardsDifferError)]
    assert len(refused) == 3
    assert len({result for result in results if isinstance(result, int)}) == 1


async def test_without_a_heartbeat_nobody_owns_anything(pool: asyncpg.Pool) -> None:
    assert await Members(pool, UUID(int=1), "silent").assign(SHARDS) == {}
