"""A worker under everything at once that others decide the size of stays below the bound its unit sets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aio_pika
import asyncpg
import pytest
from pamqp.common import FieldTable

from schemas import COMMAND_EXCHANGE, command_key, shard_of
from tests.driver.bulk import publish_all
from tests.driver.pool import Worker
from tests.driver.steady import claim
from tests.integration.cli_harness import put, shell
from tests.servers import DEPLOY_STACK, Database, Vhost

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

UNIT = DEPLOY_STACK.parent / "nodeledger-worker@.service"
NODES = [f"cn-{number}" for number in range(64)]
HALF_SENT = 300
_RESIDENT = re.compile(r"VmHWM:\s+(\d+) kB")


def bound_mib() -> int:
    """What the unit lets a worker have."""
    found = re.search(r"^MemoryMax=(\d+)M$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def heavy(node: str, **more: object) -> bytes:
    head = {"version": 1, "id": str(uuid4()), "issued_at": "2026-11-22T07:00:00Z", "node": node}
    return json.dumps({**head, **more}).encode()


def attacks() -> Iterable[tuple[str, aio_pika.Message]]:
    """Bodies far too large, headers of many small parts, claims as large as they may be, and long dead letters."""
    headers: FieldTable = {f"x-{number}": {"n": [number] * 8} for number in range(900)}
    resources = {"vcpus": 1, "memory_mib": 1, "custom": {f"CUSTOM_{'X' * 120}_{n}": 1 for n in range(256)}}
    for number in range(600):
        node = NODES[number % len(NODES)]
        candidates = [name for name in NODES if name != node]
        many = {"kind": "claim", "instance": str(uuid4()), "project": "acme", "candidates": candidates}
        yield node, aio_pika.Message(heavy(node, **many, resources=resources, dry_run=True), headers=headers)
        yield node, aio_pika.Message(heavy(node, kind="nonsense", text="x" * 200_000), headers=headers)
    for number in range(24):
        yield NODES[number], aio_pika.Message(b"x" * 8_000_000)


async def publish(url: str) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        exchange = await (await connection.channel()).get_exchange(COMMAND_EXCHANGE, ensure=False)
        for node, message in attacks():
            await exchange.publish(message, command_key(shard_of(node)))


@asynccontextmanager
async def half_sent(port: int) -> AsyncIterator[None]:
    """Requests of which nothing but the beginning comes."""
    writers = []
    for _ in range(HALF_SENT):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 4000)
        writers.append(writer)
    yield
    for writer in writers:
        writer.transport.abort()


async def applied(database: Database, claims: int) -> None:
    """Wait until so many claims are, which came behind all else."""
    connection = await asyncpg.connect(database.reader_url)
    query = "SELECT count(*) FROM nodeledger.outcome_view WHERE kind = 'claim' AND status = 'applied'"
    while await connection.fetchval(query) < claims:  # noqa: ASYNC110 - the other side is another process
        await asyncio.sleep(0.2)
    await connection.close()


def peak_mib(pid: int) -> int:
    found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


async def test_a_worker_under_everything_at_once_stays_below_the_bound_of_its_unit(
    vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    assert (await operator.run("topology", "apply")).status == 0
    worker = Worker("w", tmp_path, operator.environment)
    await worker.start()
    try:
        await worker.ready()
        sent = await operator.send(*map(put, NODES))
        assert {outcome["status"] for outcome in sent.lines} == {"applied"}, sent
        async with half_sent(int((tmp_path / "w.port").read_text())):
            await publish(vhost.url)
            await publish_all(vhost.url, [claim(node) for node in NODES])
            await applied(database, len(NODES))
        assert peak_mib(worker.pid) < bound_mib() * 3 // 4, "the bound leaves room for what no test thinks of"
        assert not worker.ended
    finally:
        await worker.kill()
