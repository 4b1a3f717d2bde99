"""The driver's own ends of the pool: what publishes commands and what hears outcomes, with plain aio-pika."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any, Final, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from schemas.routing import COMMAND_EXCHANGE, OUTCOME_EXCHANGE, command_key, shard_of

OUTCOME_QUEUE: Final = "driver.outcomes"
_WINDOW: Final = 200
_AGAIN_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 15.0
_AWAY: Final = (aio_pika.exceptions.AMQPError, OSError, TimeoutError, asyncio.InvalidStateError, RuntimeError)

FINAL: Final = {"applied", "rejected"}


async def publish(url: str, messages: Sequence[tuple[str, bytes]], per_second: float = 0) -> None:
    """Publish bodies to nodes, in order, each until the broker has confirmed it.

    After a loss everything from the first unconfirmed message on is sent again:
    some then arrive twice, and none before one that was sent before it.
    """
    done = 0
    began = time.monotonic()
    while done < len(messages):
        try:
            async with _connected(url) as channel:
                exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
                while done < len(messages):
                    window = messages[done : done + _WINDOW]
                    async with asyncio.timeout(2 * _PATIENCE_SECONDS):
                        await asyncio.gather(*(_send(exchange, node, body) for node, body in window))
                    done += len(window)
                    if per_second:
                        await asyncio.sleep(max(0.0, began + done / per_second - time.monotonic()))
        except _AWAY:
            await asyncio.sleep(_AGAIN_SECONDS)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of a connection that is given up, and not waited for, when the broker dies under it."""
    connection = await aio_pika.connect(url, timeout=_PATIENCE_SECONDS)
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        yield channel
    finally:
        with suppress(*_AWAY):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await connection.close()


async def _send(exchange: AbstractExchange, node: str, body: bytes) -> None:
    message = aio_pika.Message(body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await exchange.publish(message, command_key(shard_of(node)))


def body_of(command: dict[str, Any], *, astray: bool = False) -> tuple[str, bytes]:
    """The node to whose shard a command goes, its own unless it is sent ``astray``; and its bytes."""
    node = command["node"]
    if astray:
        names = (f"{node}-{number}" for number in count())
        return next(name for name in names if shard_of(name) != shard_of(node)), json.dumps(command).encode()
    return node, json.dumps(command).encode()


class Listener:
    """Keeps every outcome that is published: final ones by their text, to tell two answers from one said twice."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._task: asyncio.Task[None] | None = None
        self.finals: dict[str, set[str]] = {}
        self.heard: list[tuple[float, str, str, str]] = []
        """When an outcome came, whose it was, its status and its node."""
        self.changed = asyncio.Event()
        self.losses = 0

    async def __aenter__(self) -> Self:
        async with _connected(self._url) as channel:
            queue = await channel.declare_queue(OUTCOME_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            await queue.bind(OUTCOME_EXCHANGE, "#")
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait until what was heard makes the condition true; says whether it did in time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        while True:
            try:
                async with _connected(self._url) as channel:
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        await channel.set_qos(500)
                        queue = await channel.get_queue(OUTCOME_QUEUE, ensure=False)
                        await queue.consume(self._hear)
                    while True:  # asking is the one way to notice every kind of loss
                        await asyncio.sleep(_AGAIN_SECONDS)
                        async with asyncio.timeout(_PATIENCE_SECONDS):
                            await channel.declare_queue(OUTCOME_QUEUE, passive=True)
            except _AWAY:
                self.losses += 1
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        text = message.body.decode()
        outcome = json.loads(text)
        command, status = outcome["command"], outcome["status"]
        self.heard.append((time.monotonic(), command, status, outcome["node"]))
        if status in FINAL:
            self.finals.setdefault(command, set()).add(text)
        self.changed.set()
        with suppress(*_AWAY):  # it comes again, and says the same
            await message.ack()
