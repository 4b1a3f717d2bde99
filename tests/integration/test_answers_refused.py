"""An answer that nobody takes delays nobody, is tried again alone, and leaves nothing behind in the outbox."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractChannel

from schemas import COMMAND_EXCHANGE, OUTCOME_EXCHANGE, command_key, shard_of
from tests.integration.cli_harness import claim, put, shell, worker
from tests.integration.test_cli_dead import stamped
from tests.published import published
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OTHERS = 120
FULL: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}


async def send(channel: AbstractChannel, commands: Sequence[dict[str, Any]], reply_to: str) -> None:
    exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
    for command in commands:
        message = aio_pika.Message(json.dumps(command).encode(), reply_to=reply_to)
        await exchange.publish(message, command_key(shard_of(command["node"], 16)))


async def answers(queue: aio_pika.abc.AbstractQueue, count: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    async with asyncio.timeout(60), queue.iterator(no_ack=True) as messages:
        async for message in messages:
            seen[published(message.body)["command"]] += 1
            if len(seen) == count:
                return seen
    raise AssertionError("unreachable")


async def fill(channel: AbstractChannel, queue: str) -> None:
    """Publish until the broker refuses: a quorum queue learns late that it is full."""
    with suppress(aio_pika.exceptions.DeliveryError):
        while True:
            await channel.default_exchange.publish(aio_pika.Message(b"in the way"), queue)


async def settled(ask: Callable[[], Awaitable[Any]], wanted: object) -> None:
    async with asyncio.timeout(60):
        while await ask() != wanted:  # noqa: ASYNC110 - another process: there is nothing to wait on
            await asyncio.sleep(0.02)


def claims(first: int, count: int) -> list[dict[str, Any]]:
    return [stamped(claim(f"cn-{number % 8}", str(UUID(int=number)))) for number in range(first, first + count)]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_one_full_reply_queue_holds_back_no_answer_of_others(
    kind: str, database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    async with (
        worker(shell(database, vhost), tmp_path),
        await aio_pika.connect(vhost.url) as connection,
        asyncpg.create_pool(database.superuser_url, min_size=1, max_size=1) as pool,
    ):
        channel = await connection.channel()
        full = await channel.declare_queue("full", durable=True, arguments={**FULL, "x-queue-type": kind})
        await fill(channel, "full")
        replies = await channel.declare_queue(exclusive=True)
        await send(channel, [stamped(put(f"cn-{number}")) for number in range(8)], "nobody")
        (unheard,) = commands = claims(1, 1)
        await send(channel, commands, "full")
        await send(channel, claims(100, OTHERS), replies.name)
        assert set((await answers(replies, OTHERS)).values()) == {1}
        outbox = "SELECT commands FROM nodeledger.outbox"
        await settled(lambda: pool.fetchval(outbox), [UUID(unheard["id"])])
        await full.purge()
        assert set(await answers(full, 1)) == {unheard["id"]}
        await settled(lambda: pool.fetchval(outbox), None)
        assert (await replies.get(no_ack=True, fail=False)) is None, "and none came twice"


async def test_one_full_queue_of_a_subscriber_holds_back_no_answer(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    async with worker(shell(database, vhost), tmp_path), await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        full = await channel.declare_queue("full", arguments=FULL)
        await full.bind(OUTCOME_EXCHANGE, "claim.#")
        replies = await channel.declare_queue(exclusive=True)
        other = await channel.declare_queue(exclusive=True)
        await other.bind(OUTCOME_EXCHANGE, "claim.#")
        await send(channel, [stamped(put(f"cn-{number}")) for number in range(8)], "nobody")
        await send(channel, claims(100, OTHERS), replies.name)
        assert set((await answers(replies, OTHERS)).values()) == {1}
        assert len(await answers(other, OTHERS)) == OTHERS
        assert (await replies.get(no_ack=True, fail=False)) is None
        log = (tmp_path / "worker.log").read_text()
        assert log.count("the broker refused an answer") == 1, "not a line for each"
