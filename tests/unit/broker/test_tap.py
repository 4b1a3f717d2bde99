from __future__ import annotations

import asyncio
from itertools import count, pairwise

import pamqp.frame
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from worker.broker.tap import HEAD_BYTES, WHOLE_MAX_BYTES, Confirms, Deliveries, Tap
from worker.broker.wire import Message
from worker.engine.ports import Whole


def delivered(channel: int, tag: int, bodies: list[bytes]) -> bytes:
    header = ContentHeader(body_size=sum(map(len, bodies)), properties=commands.Basic.Properties(message_id=str(tag)))
    parts = [pamqp.frame.marshal(ContentBody(body), channel) for body in bodies]
    deliver = commands.Basic.Deliver("ctag", tag, False, "e", "k")
    return pamqp.frame.marshal(deliver, channel) + pamqp.frame.marshal(header, channel) + b"".join(parts)


def method(channel: int, frame: Frame) -> bytes:
    return pamqp.frame.marshal(frame, channel)


async def run_tap(stream: bytes, cuts: list[int]) -> tuple[list[Message], list[tuple[int, bool, bool]], bytes, Tap]:
    """Feed a stream in pieces; return messages of channel 2, confirms of channel 3, and what the library sees."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    tap = Tap(reader, loop)
    messages: list[Message] = []
    confirms: list[tuple[int, bool, bool]] = []
    tap.sinks[2] = Deliveries(messages.append, lambda: None)
    tap.sinks[3] = Confirms(lambda *confirm: confirms.append(confirm))
    edges = sorted({0, *(cut % (len(stream) + 1) for cut in cuts), len(stream)})
    for start, stop in pairwise(edges):
        tap.data_received(stream[start:stop])
    reader.feed_eof()
    return messages, confirms, await reader.read(), tap


@given(
    bodies=st.lists(st.lists(st.binary(min_size=1, max_size=30), max_size=3), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_messages_and_confirms_come_out_whole_and_in_order_however_the_stream_is_cut(
    bodies: list[list[bytes]], cuts: list[int]
) -> None:
    others = [
        method(2, commands.Basic.ConsumeOk("ctag")),
        method(1, commands.Queue.DeclareOk("q", 0, 0)),
        delivered(5, 9, [b"not ours"]),
    ]
    hot = b"".join(
        delivered(2, tag, body) + method(3, commands.Basic.Ack(tag, multiple=tag % 2 == 0))
        for tag, body in enumerate(bodies, 1)
    )
    messages, confirms, passed, _ = asyncio.run(run_tap(others[0] + others[1] + hot + others[2], cuts))
    assert [(message.tag, message.body) for message in messages] == [
        (tag, b"".join(body)) for tag, body in enumerate(bodies, 1)
    ]
    assert [message.properties.message_id for message in messages] == [str(message.tag) for message in messages]
    assert confirms == [(tag, tag % 2 == 0, True) for tag in range(1, len(bodies) + 1)]
    assert passed == b"".join(others)


async def test_the_tap_knows_when_the_broker_blocks_publishers() -> None:
    blocked = method(0, commands.Connection.Blocked("low on memory"))
    *_, passed, tap = await run_tap(blocked, [])
    assert (tap.blocked, tap.unblocked.is_set()) == ("low on memory", False)
    assert passed == blocked, "the library has its own use for it"
    tap.data_received(method(0, commands.Connection.Unblocked()))
    assert (tap.blocked, tap.unblocked.is_set()) == (None, True)


async def test_the_library_sees_a_sign_of_life_while_only_hot_frames_come() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    tap = Tap(reader, loop)
    tap.sinks[2] = Deliveries(lambda _message: None, lambda: None)
    half_seconds = count(1)
    begin = tap.now
    tap._clock = lambda: begin + next(half_seconds) / 2
    for tag in range(1, 11):
        tap.data_received(delivered(2, tag, [b"x"]))
    reader.feed_eof()
    assert len(await reader.read()) // 8 in range(3, 6), "ten messages in five seconds"


async def test_a_consumer_cancelled_by_the_broker_is_noticed() -> None:
    loop = asyncio.get_running_loop()
    cancelled = asyncio.Event()
    tap = Tap(asyncio.StreamReader(loop=loop), loop)
    tap.sinks[2] = Deliveries(lambda _message: None, cancelled.set)
    tap.data_received(method(2, commands.Basic.Cancel("ctag")))
    assert cancelled.is_set()


async def test_a_message_that_its_taker_chokes_on_ends_no_connection_and_the_next_is_taken() -> None:
    loop = asyncio.get_running_loop()
    tap = Tap(asyncio.StreamReader(loop=loop), loop)
    taken: list[int] = []

    def take(message: Message) -> None:
        taken.append(message.tag)
        if message.tag == 1:
            raise RecursionError

    tap.sinks[2] = Deliveries(take, lambda: None)
    tap.data_received(delivered(2, 1, [b"x"]) + delivered(2, 2, [b"y"]))
    assert taken == [1, 2]
    assert not tap.lost.is_set()


@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=20, max_size=60), cuts=st.lists(st.integers(0, 10**7), max_size=9)
)
@example(sizes=[30_000] * 20, cuts=[100_000, 500_000])
@settings(max_examples=20, deadline=None)
def test_of_a_body_that_is_far_too_large_the_head_is_kept_with_the_size_and_digest_of_the_whole(
    sizes: list[int], cuts: list[int]
) -> None:
    bodies = [bytes((number % 256,)) * size for number, size in enumerate(sizes * 2)]
    whole = b"".join(bodies)
    messages, *_ = asyncio.run(run_tap(delivered(2, 1, bodies) + delivered(2, 2, [b"next"]), cuts))
    assert [message.tag for message in messages] == [1, 2]
    if len(whole) > WHOLE_MAX_BYTES:
        assert messages[0].body == whole[:HEAD_BYTES]
        assert messages[0].whole == Whole.of(whole)
    else:
        assert (messages[0].body, messages[0].whole) == (whole, None)
    assert (messages[1].body, messages[1].whole) == (b"next", None)
