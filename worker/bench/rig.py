"""The bench's own end of the broker: sends commands, and holds a queue that every outcome and answer goes to.

Nothing consumes that queue while something is measured, so that nobody but
the subject, the broker and the database uses the processors; how far a run has
come is read from the queue's depth, and what came is drained and counted
afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aio_pika import ExchangeType

from schemas import COMMAND_EXCHANGE, OUTCOME_EXCHANGE, command_key, command_queue, shard_of
from worker.broker.publisher import Publisher
from worker.broker.session import Session
from worker.broker.tap import Deliveries
from worker.broker.topology import ensure
from worker.engine.ports import Outgoing
from worker.errors import OperationError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractQueue

    from worker.bench.loads import Command
    from worker.broker.link import Link
    from worker.broker.session import BrokerOptions
    from worker.broker.wire import Message

_CONNECT_SECONDS: Final = 15.0
_FORGOTTEN_MILLISECONDS: Final = 3_600_000
_QUIET_SECONDS: Final = 60.0

Route = Callable[["Command"], tuple[str, str]]
"""Where a command is published to: exchange and routing key."""


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """An outcome, or the bare loop's answer, as it was drained."""

    command: str
    applied: bool
    size_bytes: int


class Rig:
    """Queues, an exchange and a publisher of the bench's own; see :func:`rigged`."""

    def __init__(self, link: Link, publisher: Publisher, name: str, shards: int) -> None:
        self.name = name
        self.exchange = f"{name}.answers"
        self.shards = shards
        self._link = link
        self._publisher = publisher
        self._queues: list[str] = []

    async def open(self) -> None:
        """Declare what the bench needs."""
        self._channel: AbstractChannel = await self._link.scratch_channel()
        await self._channel.declare_exchange(self.exchange, ExchangeType.TOPIC, durable=True)
        self._answers = await self.queue("outcomes", commands=False)
        await self._bind(self._answers, bound=True)

    async def queue(self, role: str, *, commands: bool = True) -> AbstractQueue:
        """Declare a queue like the product's; the broker forgets it when the bench was killed."""
        name = f"{self.name}.{role}"
        arguments: dict[str, str | int | bool] = {"x-queue-type": "quorum", "x-expires": _FORGOTTEN_MILLISECONDS}
        if commands:
            arguments["x-single-active-consumer"] = True
        if name not in self._queues:
            self._queues.append(name)
        return await self._channel.declare_queue(name, durable=True, arguments=dict(arguments))

    async def close(self) -> None:
        """Remove what was declared."""
        for name in self._queues:
            await self._channel.queue_delete(name)
        await self._channel.exchange_delete(self.exchange)
        await self._channel.close()

    @property
    def server_version(self) -> str:
        """The broker's version."""
        return ".".join(map(str, self._link.server_version))

    async def others(self) -> list[str]:
        """What on the command queues would disturb a measurement, one sentence each."""
        found = []
        for shard in range(self.shards):
            queue = await self._channel.declare_queue(command_queue(shard), passive=True)
            state = queue.declaration_result
            if state.consumer_count:
                found.append(f"{queue.name} has {state.consumer_count} consumers")
            if state.message_count:
                found.append(f"{queue.name} holds {state.message_count} commands")
        return found

    def to_shards(self, command: Command) -> tuple[str, str]:
        """The route of commands to the workers."""
        return COMMAND_EXCHANGE, command_key(shard_of(command.node, self.shards))

    def to_queue(self, role: str) -> Route:
        """The route of commands to a queue of the bench's own."""
        name = f"{self.name}.{role}"
        return lambda _command: ("", name)

    async def send(self, commands: Sequence[Command], route: Route) -> None:
        """Publish in order; returns when the broker has confirmed all."""
        await self._publisher.publish([Outgoing(*route(each), each.body, message_id=each.id) for each in commands])

    async def depth(self) -> int:
        """How many answers wait to be drained."""
        queue = await self._channel.declare_queue(self._answers.name, passive=True)
        return queue.declaration_result.message_count or 0

    async def drain(self, ids: Collection[str]) -> list[TimedAnswer]:
        """Take answers out of the queue until each of these commands has one, or none comes for a while."""
        clock = asyncio.get_running_loop().time
        found: list[TimedAnswer] = []
        open_ = set(ids)

        def take(message: Message, _at: float) -> None:
            found.append(_answer(message))
            open_.discard(found[-1].command)

        async with self._consuming(self._answers.name, take):
            quiet_since, seen = clock(), 0
            while open_ and clock() - quiet_since < _QUIET_SECONDS:
                await asyncio.sleep(0.01)
                if len(found) > seen:
                    quiet_since, seen = clock(), len(found)
        return found

    async def purge(self) -> None:
        """Throw away what waits to be drained."""
        await self._answers.purge()

    @asynccontextmanager
    async def hearing(self, take: Callable[[Message, float], None]) -> AsyncIterator[None]:
        """Hand every answer to ``take`` as it comes, by way of a queue that nothing is written to disk for.

        A second queue on disk would cost the broker as much as that of the commands.
        """
        await self._bind(self._answers, bound=False)
        try:
            heard = await self._channel.declare_queue(exclusive=True)
            await self._bind(heard, bound=True)
            try:
                async with self._consuming(heard.name, take):
                    yield
            finally:
                await self._channel.queue_delete(heard.name)
        finally:
            await self._bind(self._answers, bound=True)

    async def _bind(self, queue: AbstractQueue, *, bound: bool) -> None:
        for exchange in (OUTCOME_EXCHANGE, self.exchange):
            await (queue.bind(exchange, "#") if bound else queue.unbind(exchange, "#"))

    @asynccontextmanager
    async def _consuming(self, queue: str, take: Callable[[Message, float], None]) -> AsyncIterator[None]:
        """Hand every message of a queue to ``take`` as it comes, with the loop's time."""
        tap = self._link.tap
        sink = Deliveries(lambda message: take(message, tap.now), lambda: None)
        channel = await self._link.channel(sink)
        await (await channel.get_queue(queue, ensure=False)).consume(_never, no_ack=True)
        try:
            yield
        finally:
            await self._link.close_channel(channel)


@asynccontextmanager
async def rigged(options: BrokerOptions, name: str, shards: int, *, declare: bool) -> AsyncIterator[Rig]:
    """A rig that is removed at the end. The product's own queues are declared or checked as a worker does.

    Raises:
        BrokerUnavailable: the broker is away.
        TopologyError: the product's exchanges and queues are not as they must be.
    """
    publisher: Publisher | None = None

    async def attach(link: Link) -> None:
        if publisher is not None:
            await publisher.attach(link)

    session = Session(options, "bench", on_ready=attach, on_lost=lambda _link: None)
    publisher = Publisher(session, confirm_seconds=600.0)
    session.start()
    try:
        link = await session.ready(_CONNECT_SECONDS)
        await ensure(link, shards, declare=declare)
        rig = Rig(link, publisher, name, shards)
        await rig.open()
        try:
            yield rig
        finally:
            await rig.close()
    finally:
        await session.close()


def _answer(message: Message) -> TimedAnswer:
    body = message.body
    return TimedAnswer(command_of(body), b'"status":"applied"' in body, len(body))


def command_of(body: bytes) -> str:
    """The id of the command that an answer is for, without reading the rest of it.

    Raises:
        OperationError: it is no answer.
    """
    at = body.find(b'"command":"')
    if at < 0:
        raise OperationError("something else than outcomes is published to the exchange of outcomes")
    start = at + len(b'"command":"')
    return body[start : body.index(b'"', start)].decode()


async def _never(_message: object) -> None:
    """What the library would call; the tap takes everything."""
