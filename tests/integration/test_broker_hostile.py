"""What a producer can put into a message costs that message alone: no connection is lost, and its shard goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from schemas import shard_of
from tests.integration.broker_harness import Taker, write_command
from tests.property.test_messages import GOOD, field, nested, sized, table
from tests.servers import Vhost
from worker.broker.tables import TABLE_MAX_BYTES
from worker.engine.dead_letters import DeadLetters
from worker.engine.intake import Intake, Item, Refused, receive
from worker.engine.lanes import Lanes
from worker.engine.ports import Delivery
from worker.telemetry.metrics import Metrics

pytestmark = pytest.mark.integration

SHARDS = 2
SHARD = shard_of("cn-1", SHARDS)
HOSTILE = {
    "deep tables": nested(500),
    "deep arrays": nested(500, b"A"),
    "deeper than any stack": nested(9_000, b"A"),
    "large": table([(b"a", b"S" + sized(b"x" * 100_000))]),
    "many": sized(b"".join(field(b"%x" % number, b"t\1") for number in range(10_000))),
    "one name": sized(field(b"a", b"V") * (TABLE_MAX_BYTES // 3)),
    "kinds": table([
        (b"text", b"S" + sized(b"\xff")),
        (b"bytes", b"x" + sized(b"\0")),
        (b"nul", b"S" + sized(b"\0")),
        (b"decimal", b"D\xff" + b"\xff" * 4),
        (b"time", b"T" + b"\xff" * 8),
        (b"double", b"d\x7f\xef" + b"\xff" * 6),
        (b"void", b"V"),
        (b"x-nodeledger-reply-to", b"t\1"),
        (b"x-nodeledger-senders", b"l" + b"\xff" * 8),
        (b"x-nodeledger-reason", b"F" + table([(b"a", b"V")])),
        (b"traceparent", b"A" + sized(b"V" * 99)),
    ]),
}  # fmt: skip


class Engine(Taker):
    """A broker side whose deliveries go through intake, and what intake refuses to the dead letters and the archive."""

    def __init__(self, url: str) -> None:
        super().__init__(url, shards=SHARDS, archiving=True)
        self.lanes = Lanes()
        self.intake = Intake(self.lanes, SHARDS)
        self.dead_letters = DeadLetters(self.broker, self.lanes, Metrics())
        self.intake.dead_letter_with(self.dead_letters)

    def _take(self, delivery: Delivery) -> None:
        self.intake.receive(delivery)
        super()._take(delivery)

    def publish(self, headers: bytes, body: bytes) -> None:
        """Publish with a header table as it is, which no client library would write."""
        link, channel = self.broker.publisher._channel.link, self.broker.publisher._channel.number  # type: ignore[union-attr]
        write_command(link, channel, SHARD, headers, body)


@asynccontextmanager
async def engine(url: str) -> AsyncIterator[Engine]:
    made = Engine(url)
    made.broker.start()
    dead_lettering = asyncio.create_task(made.dead_letters.run())
    try:
        await made.broker.ready(30)
        yield made
    finally:
        dead_lettering.cancel()
        await made.broker.close()


@pytest.mark.parametrize("headers", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_shard_goes_on_after_a_message_with_hostile_headers(vhost: Vhost, headers: bytes) -> None:
    async with engine(vhost.url) as worker:
        worker.publish(headers, GOOD)
        worker.publish(headers, b"{")
        worker.publish(table([]), GOOD)
        await worker.until(lambda: len(worker.taken) == 3 and worker.letters)
        assert worker.lanes.depth == 2
        assert [(letter.body, letter.reason) for letter in worker.letters] == [(b"{", "malformed")]
        assert worker.letters[0].headers["x-nodeledger-senders"] == ""
        assert worker.broker.connects == 2, "no connection was lost"


async def test_a_message_that_cannot_be_taken_is_in_the_dead_letters_as_poison_and_its_shard_goes_on(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_on_poison(delivery: Delivery, shards: int) -> Item | Refused:
        if delivery.body == b"poison":
            raise RecursionError("nobody thought of it")
        return receive(delivery, shards)

    monkeypatch.setattr("worker.engine.intake.receive", fails_on_poison)
    async with engine(vhost.url) as worker:
        worker.publish(table([]), b"poison")
        worker.publish(table([]), GOOD)
        await worker.until(lambda: worker.letters)
        assert (worker.letters[0].body, worker.letters[0].reason) == (b"poison", "poison")
        assert "nobody thought of it" in worker.letters[0].detail
        assert worker.lanes.depth == 1
        assert worker.broker.connects == 2
