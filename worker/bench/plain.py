"""A worker as one would write it at first: one transaction for each message; ``python -m worker.bench.plain``.

It takes claims only, and keeps them in a schema of the bench's own. It is as
durable as the real one, and checks as little as it can.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import aio_pika
import asyncpg
import uvloop
from aio_pika import DeliveryMode, Message

from schemas import Claim, parse_command
from worker.bench.loop import ANSWER_BYTES, EXCHANGE, QUEUE, answer_around, connect, until_stopped
from worker.settings import load_settings

if TYPE_CHECKING:
    from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

SCHEMA: Final = "NODELEDGER_BENCH_SCHEMA"
TABLES: Final = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.node (name text PRIMARY KEY, vcpus bigint NOT NULL, memory_mib bigint NOT NULL);
CREATE TABLE {schema}.command (id uuid PRIMARY KEY, answer text NOT NULL);
CREATE TABLE {schema}.allocation (
    instance uuid PRIMARY KEY, node text NOT NULL REFERENCES {schema}.node, vcpus bigint NOT NULL,
    memory_mib bigint NOT NULL, project text NOT NULL, user_id text
);
"""
_KNOWN: Final = "SELECT answer FROM command WHERE id = $1"
_LOCK: Final = "SELECT vcpus, memory_mib FROM node WHERE name = $1 FOR UPDATE"
_ALLOCATE: Final = "INSERT INTO allocation VALUES ($1, $2, $3, $4, $5, $6)"
_CHARGE: Final = "UPDATE node SET vcpus = vcpus + $2, memory_mib = memory_mib + $3 WHERE name = $1"
_REMEMBER: Final = "INSERT INTO command VALUES ($1, $2)"


class PlainWorker:
    """Takes a message, does what it says, answers, acknowledges."""

    def __init__(self, pool: asyncpg.Pool, exchange: AbstractExchange, answer_bytes: int) -> None:
        self._pool = pool
        self._exchange = exchange
        self._head, self._tail = answer_around(answer_bytes)

    async def take(self, message: AbstractIncomingMessage) -> None:
        """One message, from its bytes to its acknowledgement."""
        command = parse_command(message.body)
        if not isinstance(command, Claim) or command.resources is None:
            raise TypeError("the plain worker knows claims for one instance only")
        body = self._head + str(command.id).encode() + self._tail
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.fetchval(_KNOWN, command.id) is None:
                await connection.fetchrow(_LOCK, command.node)
                vcpus, memory = command.resources.vcpus, command.resources.memory_mib
                await connection.execute(
                    _ALLOCATE, command.instance, command.node, vcpus, memory, command.project, command.user
                )
                await connection.execute(_CHARGE, command.node, vcpus, memory)
                await connection.execute(_REMEMBER, command.id, body.decode())
        outcome = Message(
            body,
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=message.message_id,
        )
        await self._exchange.publish(outcome, "bench")
        await message.ack()


async def _run() -> None:
    settings = load_settings()
    pool = await asyncpg.create_pool(
        settings.required("database_owner_url"),
        min_size=1,
        max_size=settings.database_pool_max,
        server_settings={"search_path": os.environ[SCHEMA]},
    )
    connection: aio_pika.abc.AbstractConnection = await connect()
    channel = await connection.channel(publisher_confirms=True)
    await channel.set_qos(settings.prefetch)
    exchange = await channel.get_exchange(os.environ[EXCHANGE], ensure=False)
    worker = PlainWorker(pool, exchange, int(os.environ[ANSWER_BYTES]))
    await (await channel.get_queue(os.environ[QUEUE], ensure=False)).consume(worker.take)
    await until_stopped()
    await connection.close()
    await pool.close()


if __name__ == "__main__":
    uvloop.run(_run())
