from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from tests.servers import Database
from worker.ledger.postgres import PostgresLedger

pytestmark = pytest.mark.integration

BATCHES = 6
EACH = 3
INSERT = """
WITH answered AS (
    INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, received_at, at, outcome)
    SELECT id, id, 'claim', 'applied', 'cn-1', now(), now(), '{}' FROM unnest($2::uuid[]) AS c (id)
)
INSERT INTO nodeledger.outbox (id, at, commands) VALUES ($1, now() - make_interval(secs => $3), $2)
"""


async def test_what_a_crash_left_unpublished_is_swept_in_the_order_of_the_commits_however_often(
    database: Database,
) -> None:
    pool = await asyncpg.create_pool(database.worker_url, min_size=1, max_size=2)
    ledger = PostgresLedger(pool)
    committed = []
    for number in range(BATCHES):  # ids that sort the other way round
        commands = [UUID(int=1000 - number * EACH - place) for place in range(EACH)]
        await pool.execute(INSERT, UUID(int=1000 - number), commands, float(100 - number))
        committed.append(commands)
    for limit in (BATCHES, BATCHES, 2):
        found = await ledger.unpublished(0.0, limit)
        assert [[answer.command for answer in batch.outcomes] for batch in found] == committed[:limit]
    superuser = await asyncpg.connect(database.superuser_url)
    await superuser.execute("DELETE FROM nodeledger.command WHERE id = ANY ($1)", committed[2])
    await superuser.close()
    (*_, last) = await ledger.unpublished(0.0, 1)
    assert last.outcomes == [], "what is kept no longer is not published, but the batch can be noted"
    await pool.close()
