"""Whatever a message holds harms that message alone: it is taken or refused, and the next one is taken too."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pamqp.encode import field_table

from worker.broker.dead_letters import headers_of, letter_from
from worker.broker.tables import Headers
from worker.broker.tap import Deliveries, Tap
from worker.broker.wire import Message, Properties
from worker.engine.dead_letters import DeadLetters
from worker.engine.intake import Intake
from worker.engine.lanes import Lanes
from worker.engine.ports import DeadLetter, Delivery
from worker.ledger.letters import headers_json
from worker.telemetry.metrics import Metrics

CHANNEL = 2
GOOD = json.dumps({
    "version": 1,
    "id": "00000000-0000-0000-0000-000000000001",
    "kind": "node.remove",
    "node": "cn-1",
    "issued_at": "2026-11-22T12:00:00Z",
}).encode()  # fmt: skip


def sized(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def field(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + value


def table(fields: list[tuple[bytes, bytes]]) -> bytes:
    return sized(b"".join(field(name, value) for name, value in fields))


def nested(depth: int, mark: bytes = b"F") -> bytes:
    """A table with one table (or array) in another, down to a depth."""
    inner = b"V"
    for _ in range(depth):
        inner = mark + sized(field(b"a", inner) if mark == b"F" else inner)
    return table([(b"a", inner)])


TEXT = st.text(max_size=8).map(str.encode) | st.binary(max_size=8)
NAMES = st.sampled_from(
    [b"traceparent", b"x-nodeledger-senders", b"x-nodeledger-reason", b"x-nodeledger-command", b"a"]
)
SCALARS = st.one_of(
    st.just(b"V"),
    st.sampled_from([*b"tbB"]).flatmap(lambda m: st.binary(min_size=1, max_size=1).map(lambda raw: bytes((m,)) + raw)),
    st.sampled_from([*b"su"]).flatmap(lambda m: st.binary(min_size=2, max_size=2).map(lambda raw: bytes((m,)) + raw)),
    st.sampled_from([*b"Iif"]).flatmap(lambda m: st.binary(min_size=4, max_size=4).map(lambda raw: bytes((m,)) + raw)),
    st.sampled_from([*b"lLdT"]).flatmap(lambda m: st.binary(min_size=8, max_size=8).map(lambda raw: bytes((m,)) + raw)),
    st.binary(min_size=5, max_size=5).map(lambda raw: b"D" + raw),
    st.sampled_from([b"S", b"x"]).flatmap(lambda mark: TEXT.map(lambda raw: mark + sized(raw))),
    st.binary(max_size=9),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: b"A" + sized(b"".join(items)))
        | st.lists(st.tuples(NAMES | TEXT, inner), max_size=4).map(lambda fields: b"F" + table(fields))
    ),
    max_leaves=12,
)
TABLES = st.one_of(
    st.lists(st.tuples(NAMES | TEXT, VALUES), max_size=6).map(table),
    st.builds(nested, st.integers(0, 3000), st.sampled_from([b"F", b"A"])),
    st.binary(max_size=40).map(sized),
    st.binary(max_size=40),
)
BODIES = st.just(GOOD) | st.binary(max_size=60) | st.integers(0, 5000).map(lambda depth: b"[" * depth)


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, CHANNEL, len(payload)) + payload + b"\xce"


def delivered(tag: int, flags: int, properties: bytes, body: bytes, size: int | None = None) -> bytes:
    method = b"\x00\x3c\x00\x3c\x01c" + struct.pack(">QB", tag, 0) + b"\x01e\x01k"
    head = struct.pack(">HHQH", 60, 0, len(body) if size is None else size, flags) + properties
    return frame(1, method) + frame(2, head) + (frame(3, body) if body else b"")


def feed(stream: bytes, cuts: list[int], take: Callable[[Message], None]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        tap = Tap(asyncio.StreamReader(loop=loop), loop)
        tap.sinks[CHANNEL] = Deliveries(take, lambda: None)
        edges = sorted({0, *(cut % (len(stream) + 1) for cut in cuts), len(stream)})
        for start, stop in pairwise(edges):
            tap.data_received(stream[start:stop])

    asyncio.run(run())


def through_intake(headers: Headers, body: bytes) -> tuple[int, list[DeadLetter]]:
    """How many of a message and a good one behind it were put on a lane, and what was refused."""

    async def run() -> tuple[int, list[DeadLetter]]:
        lanes = Lanes()
        intake = Intake(lanes, 1)
        dead_letters = DeadLetters(cast("Any", None), lanes, Metrics())  # nothing is sent here
        intake.dead_letter_with(dead_letters)
        for tag, (held, content) in enumerate([(headers, body), (Headers(b"\0\0\0\0"), GOOD)], 1):
            intake.receive(Delivery(0, content, tag, None, False, 0.0, None, None, "guest", held))
        return lanes.depth, dead_letters.waiting

    return asyncio.run(run())


@given(raw=TABLES, body=BODIES, cuts=st.lists(st.integers(0, 20_000), max_size=12))
@example(raw=nested(500), body=GOOD, cuts=[])
@example(raw=nested(500, b"A"), body=GOOD, cuts=[])
@example(raw=table([(b"t", b"T" + b"\xff" * 8)]), body=GOOD, cuts=[])
@settings(max_examples=300)
def test_whatever_its_headers_and_body_hold_a_message_is_taken_or_refused_and_so_is_the_next(
    raw: bytes, body: bytes, cuts: list[int]
) -> None:
    messages: list[Message] = []
    feed(delivered(1, 1 << 13, raw, body) + delivered(2, 0, b"", GOOD), cuts, messages.append)
    assert [(message.tag, message.body) for message in messages] == [(1, body), (2, GOOD)]
    on_lanes, refused = through_intake(messages[0].properties.headers, body)
    assert on_lanes + len(refused) == 2
    assert on_lanes >= 1
    assert body == GOOD or refused[0].reason == "malformed"


@given(raw=TABLES)
@example(raw=nested(500))
@example(raw=table([(b"n", b"S" + sized(b"\xff")), (b"d", b"d" + b"\x7f\xef" + b"\xff" * 6)]))
@settings(max_examples=300)
def test_a_dead_letter_can_be_published_and_archived_whatever_the_headers_of_its_message_were(raw: bytes) -> None:
    _, (letter,) = through_intake(Headers(raw), b"{")
    written = field_table(headers_of(letter))
    assert len(written) <= 65_536
    again = letter_from(
        Message(1, False, b"\x0enodeledger.dead\x09malformed", Properties(Headers(written)), letter.body)
    )
    assert (again.reason, again.detail) == ("malformed", letter.detail)
    assert "guest" in str(again.headers["x-nodeledger-senders"]) or again.headers["x-nodeledger-senders"] == ""
    kept = headers_json(again.headers)
    assert json.loads(kept, parse_constant=pytest.fail)
    assert "\\u0000" not in kept
    letter_from(Message(1, False, b"\x01e\x01k", Properties(Headers(raw)), b""))


@given(flags=st.integers(0, 65_535), noise=st.binary(max_size=80), size=st.none() | st.integers(0, 2**64 - 1))
@settings(max_examples=300)
def test_a_good_message_is_delivered_after_one_whose_properties_make_no_sense(
    flags: int, noise: bytes, size: int | None
) -> None:
    messages: list[Message] = []
    feed(delivered(1, flags, noise, b"x", size) + delivered(2, 0, b"", GOOD), [], messages.append)
    assert (messages[-1].tag, messages[-1].body, messages[-1].properties) == (2, GOOD, Properties())
