from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from tests.integration.ledger_seed import INSTANCES, seed
from tests.servers import Database
from worker.api import add_read_api
from worker.ledger.pool import connect_pool
from worker.telemetry.http import StatusServer

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    async with await connect_pool(database.worker_url, max_size=4) as made:
        yield made


@pytest.fixture
async def site(pool: asyncpg.Pool) -> AsyncIterator[aiohttp.ClientSession]:
    server = StatusServer(CollectorRegistry(), list)
    add_read_api(server.app, pool)
    port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        yield client
    await server.close()


async def read(site: aiohttp.ClientSession, path: str) -> Any:
    async with site.get(path) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "application/json"
        return await answer.json()


async def refused(site: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with site.get(path) as answer:
        assert answer.content_type == "application/problem+json"
        return answer.status, (await answer.json())["detail"]


async def test_every_endpoint_says_what_the_ledger_says(site: aiohttp.ClientSession, database: Database) -> None:
    await seed(database.worker_url)
    nodes = await read(site, "/v1/nodes")
    assert [node["node"] for node in nodes["nodes"]] == ["cn-1", "cn-2"]
    node = await read(site, "/v1/nodes/cn-1")
    assert node["node"] == nodes["nodes"][0]
    instance = await read(site, f"/v1/instances/{INSTANCES[0]}")
    assert instance["allocations"][0] in node["allocations"]
    usage = await read(site, "/v1/usage")
    by_name = {use["resource"]: use["used"] for use in usage["resources"]}
    assert by_name["vcpus"] == sum(node["usage"]["vcpus"]["used"] for node in nodes["nodes"])
    assert {row["project"] for row in (await read(site, "/v1/usage?project=blue"))["projects"]} == {"blue"}
    history = await read(site, f"/v1/history?instance={INSTANCES[0]}")
    assert {line["instance"] for line in history["entries"]} == {str(INSTANCES[0])}


async def test_pages_follow_each_other_without_gap_or_repeat(site: aiohttp.ClientSession, database: Database) -> None:
    await seed(database.worker_url)
    whole = (await read(site, "/v1/history?limit=1000"))["entries"]
    assert len(whole) > 3
    pieces: list[Any] = []
    following = ""
    while True:
        page = await read(site, f"/v1/history?limit=2{following}")
        pieces += page["entries"]
        if page["next"] is None:
            break
        following = f"&after={page['next']}"
    assert pieces == whole


async def test_what_is_not_there_and_what_is_asked_wrongly_is_told_in_one_sentence(
    site: aiohttp.ClientSession,
) -> None:
    for path in (
        "/v1/nodes/cn-9",
        f"/v1/instances/{INSTANCES[0]}",
        f"/v1/outcomes/{INSTANCES[0]}",
        "/v1/what",
        "/what",
    ):
        assert (await refused(site, path))[0] == 404
    for path, name in (
        ("/v1/nodes?limit=0", "limit"),
        ("/v1/nodes?limit=1001", "limit"),
        ("/v1/nodes?limit=²", "limit"),
        ("/v1/nodes?limit=00000000000000000001000000", "limit"),
        ("/v1/history?after=000000000000000000009223372036854775808", "after"),
        ("/v1/history?since=0001-01-01T00:00:00%2B23:59", "since"),
        ("/v1/history?until=9999-12-31T23:59:59-23:59", "until"),
        ("/v1/usage?project=x&since=0001-01-01&until=9999-12-31T23:59:59.999999", "since"),
        ("/v1/nodes?after=%00", "after"),
        ("/v1/history?after=99999999999999999999", "after"),
        ("/v1/history?since=yesterday", "since"),
        ("/v1/history?limit=1&limit=2", "limit"),
        ("/v1/usage?since=2026-01-01", "since"),
        ("/v1/instances/42", "id"),
        ("/v1/dead-letters?state=lost", "state"),
        ("/v1/nodes/cn-1?x=1", "x"),
    ):
        status, detail = await refused(site, path)
        assert (status, detail.startswith(f"{name}: ")) == (400, True), (path, detail)
    assert (await refused(site, "/v1/nodes/%00"))[0] == 404
    async with site.post("/v1/nodes") as answer:
        assert (answer.status, answer.content_type) == (405, "application/problem+json")


async def test_a_database_that_is_away_is_said_so_and_health_still_answers(
    site: aiohttp.ClientSession, pool: asyncpg.Pool
) -> None:
    await pool.close()
    status, detail = await refused(site, "/v1/nodes")
    assert status == 503
    assert "database" in detail
    async with site.get("/livez") as answer:
        assert answer.status == 200


async def test_readers_never_take_more_than_two_of_the_workers_connections(
    site: aiohttp.ClientSession, pool: asyncpg.Pool, database: Database
) -> None:
    blocker, watcher = [await asyncpg.connect(database.superuser_url) for _ in range(2)]
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("LOCK TABLE nodeledger.node IN ACCESS EXCLUSIVE MODE")
    asked = [asyncio.create_task(read(site, "/v1/nodes")) for _ in range(6)]
    waiting = 0
    async with asyncio.timeout(20):
        while waiting < 2:
            waiting = await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
    assert waiting == 2
    assert await pool.fetchval("SELECT 1") == 1, "the work still finds a connection"
    await transaction.rollback()
    await blocker.close()
    await watcher.close()
    assert all(await asyncio.gather(*asked))


async def test_the_dashboard_needs_nothing_from_elsewhere_and_runs_no_markup(site: aiohttp.ClientSession) -> None:
    async with site.get("/") as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(link.startswith(("/", "#", "data:,")) for link in linked)
    for link in linked:
        if link.startswith("/page"):
            async with site.get(link) as answer:
                text = await answer.text()
            assert answer.status == 200
            assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page)
