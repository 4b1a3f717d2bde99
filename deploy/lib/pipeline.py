"""A pipeline as the contract sees one: it publishes commands, takes the outcomes, and reads the database's views."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import aio_pika
import asyncpg

from schemas import COMMAND_EXCHANGE, DEFAULT_SHARDS, VERSION, Outcome, command_key, shard_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.05


class StoryError(Exception):
    """A step did not go as it should; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Message:
    """A command as it is published; the same message may be published again."""

    id: UUID
    node: str
    body: bytes


def compose(kind: str, node: str, **fields: object) -> Message:
    """Write a command with an id of its own."""
    chosen = uuid4()
    issued = datetime.now(UTC).isoformat()
    envelope = {"version": VERSION, "id": str(chosen), "kind": kind, "node": node, "issued_at": issued}
    return Message(chosen, node, json.dumps({**envelope, **fields}).encode())


@dataclass(slots=True)
class Pipeline:
    """A producer with a queue of its own for the outcomes, and a reader of the database."""

    exchange: AbstractExchange
    answers: str
    database: asyncpg.Connection
    told: Callable[[Outcome], None]
    """Called with every outcome that says: parked."""
    _awaited: dict[UUID, asyncio.Future[Outcome]] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, broker_url: str, database_url: str, told: Callable[[Outcome], None]) -> AsyncIterator[Pipeline]:
        """Connect to both servers."""
        connection = await aio_pika.connect(broker_url)
        async with connection:
            channel = await connection.channel(on_return_raises=True)
            queue = await channel.declare_queue(exclusive=True, auto_delete=True)
            exchange = await channel.get_exchange(COMMAND_EXCHANGE)
            database = await asyncpg.connect(database_url)
            made = cls(exchange, queue.name, database, told)
            await queue.consume(made._take, no_ack=True)
            try:
                yield made
            finally:
                await database.close()

    async def ask(self, message: Message) -> Outcome:
        """Publish a command and wait until it is applied, rejected or dead."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._awaited[message.id] = answer
        await self.publish(message, shard_of(message.node, DEFAULT_SHARDS))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await answer
        except TimeoutError:
            raise StoryError(f"no outcome within {PATIENCE_SECONDS:g} s") from None
        finally:
            del self._awaited[message.id]

    async def publish(self, message: Message, shard: int) -> None:
        """Publish a command to a shard, its node's or not; returns when the broker has it safely."""
        await self.exchange.publish(
            aio_pika.Message(
                message.body,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=str(message.id),
                reply_to=self.answers,
            ),
            command_key(shard),
            timeout=PATIENCE_SECONDS,
        )

    async def until(self, look: Callable[[], Awaitable[asyncpg.Record | None]], what: str) -> asyncpg.Record:
        """Look into the database until there is what should be; `what` names it."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    if (found := await look()) is not None:
                        return found
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise StoryError(f"no {what} within {PATIENCE_SECONDS:g} s") from None

    async def _take(self, message: AbstractIncomingMessage) -> None:
        outcome = Outcome.model_validate_json(message.body)
        answer = self._awaited.get(outcome.command)
        if outcome.status == "parked":
            self.told(outcome)
        elif answer is not None and not answer.done():
            answer.set_result(outcome)
