from __future__ import annotations

from typing import Any, cast

import pytest

from tests.property.test_messages import sized
from worker.broker import consumer as consumer_module
from worker.broker.consumer import Consumer, ConsumingChannel
from worker.broker.tables import Headers
from worker.broker.wire import Message, Properties
from worker.engine.ports import Delivery


class Tap:
    """Whether a connection is read."""

    def __init__(self) -> None:
        self.paused = False
        self.now = 0.0

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Link:
    """A connection of which only the reading matters."""

    alive = True

    def __init__(self) -> None:
        self.tap = Tap()

    def write(self, _frames: bytes) -> bool:
        return True


def message(tag: int, body: int = 0, headers: int = 0) -> Message:
    properties = Properties(Headers(sized(b"\x01aS" + sized(b"x" * (headers - 11))))) if headers else Properties()
    return Message(tag, False, b"\0\0", properties, b"x" * body)


@pytest.mark.parametrize(
    ("one", "most"),
    [(message(0, headers=50_000), 90), (message(0, body=200_000), 25), (message(0, body=1_000_000), 70)],
    ids=["headers", "commands, which are parsed", "bodies that are not"],
)
async def test_reading_pauses_before_what_is_held_takes_too_much_memory_and_goes_on_once_it_is_settled(
    one: Message, most: int
) -> None:
    taken: list[Delivery] = []
    consumer = Consumer([0], 400, taken.append)
    link = cast("Any", Link())
    channel = ConsumingChannel(0, link)
    consumer._link = link
    consumer._channels[0] = channel
    while not link.tap.paused and len(taken) < 400:
        consumer._take(channel, Message(len(taken) + 1, False, b"\0\0", one.properties, one.body))
    assert most // 2 < len(taken) <= most
    for delivery in taken:
        delivery.headers = {}
        consumer.settle([delivery])
    consumer._flush()
    assert not link.tap.paused
    assert channel.held_bytes == consumer._held_bytes == 0
    assert consumer_module.HELD_MAX_BYTES == 64 * 1024 * 1024


async def test_a_full_window_of_ordinary_commands_is_read_without_a_pause() -> None:
    taken: list[Delivery] = []
    consumer = Consumer([0], 400, taken.append)
    link = cast("Any", Link())
    channels = [ConsumingChannel(shard, link) for shard in range(16)]
    for tag in range(1, 401):
        for channel in channels:
            consumer._take(channel, message(tag, body=450, headers=75))
    assert len(taken) == 6400
    assert not link.tap.paused
