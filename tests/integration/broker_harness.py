"""A worker's broker side alone: what it is given it keeps, and what it settles is up to the test."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext

import pytest

from schemas.routing import COMMAND_EXCHANGE, command_key
from worker.broker.link import Link
from worker.broker.rabbit import RabbitBroker
from worker.broker.session import BrokerOptions
from worker.engine.ports import BrokerUnavailable, DeadLetter, Delivery, LedgerUnavailable, Outgoing

DEADLINE_SECONDS = 30.0


class Taker:
    """A broker whose deliveries and archived dead letters are kept in lists.

    With ``settling``, each delivery is settled at once and its number noted in
    ``order``, which several takers may share.
    """

    def __init__(
        self,
        url: str,
        *,
        shards: int = 2,
        settling: bool = False,
        archiving: bool = False,
        tls: SSLContext | None = None,
    ) -> None:
        self.taken: list[Delivery] = []
        self.letters: list[DeadLetter] = []
        self.order: list[int] = []
        self.store_failures = 0
        self.settling = settling
        self._changed = asyncio.Event()
        self.broker = RabbitBroker(
            BrokerOptions((url,), name="test", tls=tls),
            shards,
            self._take,
            store=self._store if archiving else None,
            prefetch=50,
        )

    def bodies(self, shard: int = 0) -> list[int]:
        """The numbers taken from one shard, in order."""
        return [int(delivery.body) for delivery in self.taken if delivery.shard == shard]

    async def until(self, condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until something taken or stored makes the condition true."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_all(self, count: int, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until exactly the numbers below ``count`` were taken, however often; compared once there are enough."""
        numbers = set(range(count))
        await self.until(lambda: len(self.taken) >= count and set(self.bodies()) == numbers, seconds)

    def _take(self, delivery: Delivery) -> None:
        self.taken.append(delivery)
        if self.settling:
            self.order.append(int(delivery.body) if delivery.body.isdigit() else -1)
            self.broker.settle([delivery])
        self._changed.set()

    async def _store(self, letters: Sequence[DeadLetter]) -> None:
        if self.store_failures:
            self.store_failures -= 1
            raise LedgerUnavailable("no database")
        self.letters += letters
        self._changed.set()


@asynccontextmanager
async def taker(url: str, *, shards: int = 2, settling: bool = False, archiving: bool = False) -> AsyncIterator[Taker]:
    """A connected taker, closed at the end."""
    made = Taker(url, shards=shards, settling=settling, archiving=archiving)
    made.broker.start()
    try:
        await made.broker.ready(DEADLINE_SECONDS)
        yield made
    finally:
        await made.broker.close()


async def refusal(broker: RabbitBroker) -> str:
    """Why a broker cannot be used, as soon as that is known."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with pytest.raises(BrokerUnavailable) as caught:
                await broker.ready(0.1)
            if not str(caught.value).startswith("no connection"):
                return str(caught.value)


def commands(numbers: Sequence[int], shard: int = 0) -> list[Outgoing]:
    """Messages for one shard whose bodies are numbers."""
    return [Outgoing(COMMAND_EXCHANGE, command_key(shard), str(number).encode()) for number in numbers]


async def eventually(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for something of the broker's that nobody signals."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the other side is another process
            await asyncio.sleep(0.02)


def write_command(link: Link, channel: int, shard: int, headers: bytes, body: bytes) -> None:
    """Publish to a shard with a header table as it is, which no client library would write."""
    key, name = command_key(shard).encode(), COMMAND_EXCHANGE.encode()
    method = b"\x00\x3c\x00\x28\x00\x00" + bytes((len(name),)) + name + bytes((len(key),)) + key + b"\0"
    head = struct.pack(">HHQH", 60, 0, len(body), 1 << 13) + headers
    for kind, payload in ((1, method), (2, head), (3, body)):
        link.write(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")
