"""The client beside a bare aio-pika publisher with the same window. ``pytest -m bench -s`` prints the figures.

Both have so many commands under way that are not answered, and wait for all
answers. The bare one makes its bodies before, checks nothing, keeps nothing
for another attempt, and takes an answer apart no further than its id.

``NODELEDGER_BENCH_COMMANDS`` is how many each sends a round, and
``NODELEDGER_BENCH_ROUNDS`` how many rounds there are, by turns.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import UUID, uuid4

import aio_pika
import pytest
from pydantic_core import from_json

from schemas import COMMAND_EXCHANGE, Command, command_key, shard_of
from schemas.asking import command_of
from schemas.client import Client, Message
from tests.integration.cli_harness import shell, worker
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

COMMANDS: Final = int(os.environ.get("NODELEDGER_BENCH_COMMANDS", "8000"))
ROUNDS: Final = int(os.environ.get("NODELEDGER_BENCH_ROUNDS", "5"))
NODES: Final = 100
WINDOW: Final = 512
LEAST_RATIO: Final = 0.8
BIG: Final[Any] = {"cpus": "0-1023", "memory_mib": 2**30, "disk_gib": 10}


def claims() -> list[Command]:
    resources = {"vcpus": 1, "memory_mib": 1}
    return [
        command_of("claim", f"cn-{number % NODES}", instance=uuid4(), project="demo", resources=resources)
        for number in range(COMMANDS)
    ]


async def bare(url: str, messages: list[Message]) -> float:
    """Commands a second through plain aio-pika."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
        queue = await channel.declare_queue(exclusive=True)
        waiting: set[UUID] = {message.id for message in messages if message.id}
        room, over = asyncio.Semaphore(WINDOW), asyncio.Event()

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            waiting.discard(UUID(from_json(message.body)["command"]))
            room.release()
            if not waiting:
                over.set()

        await queue.consume(take, no_ack=True)
        began = time.perf_counter()
        sending: set[asyncio.Task[Any]] = set()
        for message in messages:
            await room.acquire()
            made = aio_pika.Message(
                message.body,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=str(message.id),
                correlation_id=str(message.id),
                reply_to=queue.name,
            )
            task = asyncio.ensure_future(exchange.publish(made, command_key(shard_of(message.node))))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await over.wait()
        return len(messages) / (time.perf_counter() - began)


async def ours(client: Client, commands: list[Command]) -> float:
    """Commands a second through the client."""
    began = time.perf_counter()
    count = 0
    async for outcome in client.send_many(commands, window=WINDOW):
        assert outcome.status == "applied"
        count += 1
    return count / (time.perf_counter() - began)


async def test_the_client_is_nearly_as_fast_as_a_bare_publisher(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    assert (await operator.run("topology", "apply")).status == 0
    theirs_each, ours_each = [], []
    async with worker(operator, tmp_path), Client(vhost.url) as client:
        for node in range(NODES):
            put = command_of("node.put", f"cn-{node}", inventory=BIG)
            assert (await client.send(put)).status == "applied"
        for _ in range(ROUNDS):
            theirs_each.append(await bare(vhost.url, [Message.of(one) for one in claims()]))
            ours_each.append(await ours(client, claims()))
    ratio = median(ours_each) / median(theirs_each)
    sys.stdout.write(
        f"\nbare {[round(one) for one in theirs_each]}, client {[round(one) for one in ours_each]}: {ratio:.2f}\n"
    )
    assert ratio >= LEAST_RATIO
