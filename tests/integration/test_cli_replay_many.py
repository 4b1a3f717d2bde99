"""Replaying a whole archive of dead letters, twice. ``-s`` prints the times."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from tests.driver.bulk import publish_all
from tests.driver.steady import claim, put, stamped
from tests.integration.cli_harness import Shell, shell, worker
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

LETTERS: Final = int(os.environ.get("NODELEDGER_TEST_DEAD_LETTERS", "2000"))
NODES: Final = [f"cn-{number}" for number in range(50)]
TABLES: Final = ("command", "instance", "allocation", "node", "entry", "parked_command", "attempt")
OPEN: Final = "SELECT count(*) FROM nodeledger.dead_letter WHERE state = 'open'"
RESOLVED: Final = "SELECT count(*) FROM nodeledger.dead_letter WHERE state = 'resolved'"
UNPUBLISHED: Final = "SELECT count(*) FROM nodeledger.outbox"


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(database.superuser_url)
    yield made
    await made.close()


def history(count: int) -> Iterator[dict[str, Any]]:
    """Claims, and deletes of every fourth of them that only work behind their claim."""
    last: dict[str, str] = {}
    for number in range(count):
        node = NODES[number % len(NODES)]
        if number // len(NODES) % 4 == 3:
            yield stamped("delete", node, instance=last[node])
        else:
            last[node] = (one := claim(node))["instance"]
            yield one


async def digests(owner: asyncpg.Connection) -> dict[str, str]:
    """What all there is in each table of the ledger comes to, row by row."""
    text = "SELECT count(*) || ' rows, ' || md5(coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), ''))"
    return {name: await owner.fetchval(f"{text} FROM nodeledger.{name} AS r") for name in TABLES}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 300) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - another process: there is nothing to wait on
            await asyncio.sleep(0.1)


async def duplicates(address: str) -> int:
    """How many commands a worker has met that had been answered before."""
    async with aiohttp.ClientSession() as http, http.get(f"{address}/metrics") as answer:
        text = await answer.text()
    line = next(line for line in text.splitlines() if line.startswith("nodeledger_commands_duplicate_total "))
    return int(float(line.split()[1]))


async def replayed(operator: Shell, *options: str) -> None:
    began = time.monotonic()
    ended = await operator.run("dead", "replay", "--all", *options)
    assert (ended.status, f"{LETTERS} replayed, 0 left" in ended.err) == (0, True), ended.err
    tell("sent again", began)


def tell(what: str, began: float) -> None:
    seconds = time.monotonic() - began
    sys.stdout.write(f"\n{LETTERS} letters {what}: {seconds:.1f} s, {LETTERS / seconds:.0f} a second")


async def test_a_whole_archive_replayed_twice_is_applied_once(
    database: Database, vhost: Vhost, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path) as address:
        await publish_all(vhost.url, map(put, NODES))
        began = time.monotonic()
        assert await publish_all(vhost.url, history(LETTERS), astray=True) == LETTERS

        async def archived() -> bool:
            return bool(await owner.fetchval(OPEN) == LETTERS)

        await until(archived)
        tell("published, refused and archived", began)

        began = time.monotonic()
        await replayed(operator)

        async def applied() -> bool:
            return bool(await owner.fetchval(RESOLVED) == LETTERS and not await owner.fetchval(UNPUBLISHED))

        await until(applied)
        tell("sent again and applied", began)
        assert await owner.fetchval("SELECT count(*) FROM nodeledger.command WHERE status = 'applied'") >= LETTERS
        before = await digests(owner)
        met = await duplicates(address)
        nothing = await operator.run("dead", "replay", "--all", "--again")
        assert (nothing.status, "0 replayed" in nothing.err) == (0, True), "what was answered is not sent again"

        # As where the archive was restored, or a replay was cut off before it was written down.
        await owner.execute("UPDATE nodeledger.dead_letter SET state = 'open'")
        began = time.monotonic()
        await replayed(operator)

        async def recognised() -> bool:
            return await duplicates(address) == met + LETTERS and not await owner.fetchval(UNPUBLISHED)

        await until(recognised)
        tell("sent once more and recognised", began)
        assert await digests(owner) == before
        assert (await operator.run("verify")).status == 0
