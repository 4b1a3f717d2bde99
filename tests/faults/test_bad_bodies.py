from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from uuid import uuid4

import asyncpg
import pytest

from deploy.lib.stack import Stack
from tests.driver.run import pool
from tests.driver.traffic import publish
from tests.integration.cli_harness import INVENTORY
from tests.servers import Database, Vhost
from tests.unit.schemas.bad_bodies import bad_bodies

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FEW = 300
NODE = "cn-1"


def good(number: int) -> tuple[str, bytes]:
    head = {"version": 1, "id": str(uuid4()), "node": NODE, "issued_at": "2026-01-01T00:00:00Z"}
    policy = {"ratios": {"vcpus": "1000.0"}}
    if not number:
        return NODE, json.dumps({**head, "kind": "node.put", "inventory": INVENTORY, "policy": policy}).encode()
    resources = {"vcpus": 1, "memory_mib": 1}
    claim = {**head, "kind": "claim", "instance": str(uuid4()), "project": "acme", "resources": resources}
    return NODE, json.dumps(claim).encode()


async def test_bad_bodies_between_good_ones_become_dead_letters_that_name_the_fault_and_stop_nothing(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    every = {bad.body: bad for bad in bad_bodies()}
    bads = Random(3).sample(list(every.values()), FEW)
    fine = [good(number) for number in range(FEW)]
    mixed = [message for pair in zip(fine, [(NODE, bad.body) for bad in bads], strict=True) for message in pair]
    async with pool(stack, vhost, database, tmp_path, 1) as run:
        await publish(vhost.url, mixed)
        ids = {json.loads(body)["id"] for _, body in fine}
        assert await run.listener.until(lambda: ids <= run.listener.finals.keys(), 120)
        connection = await asyncpg.connect(database.superuser_url)
        async with asyncio.timeout(60):
            rows: list[asyncpg.Record] = []
            while len(rows) < FEW:  # the archive follows the queue
                await asyncio.sleep(0.05)
                rows = await connection.fetch("SELECT body, reason, detail FROM nodeledger.dead_letter")
        applied = await connection.fetchval("SELECT count(*) FROM nodeledger.outcome_view WHERE status = 'applied'")
        await connection.close()
        assert applied == FEW
        letters = {row["body"]: row for row in rows}
        assert letters.keys() == {bad.body for bad in bads}
        for bad in bads:
            assert letters[bad.body]["reason"] == bad.reason, bad.name
            assert bad.says in letters[bad.body]["detail"], bad.name
        assert not run.workers[0].ended
        assert run.workers[0].starts == 1
