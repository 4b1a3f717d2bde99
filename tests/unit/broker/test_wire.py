from __future__ import annotations

from datetime import UTC, datetime

import pamqp.frame
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from worker.broker import wire
from worker.engine.ports import Outgoing

FRAME_MAX = 4096
short_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
names = st.text("abcXYZ019-_.:", max_size=40)


def parse(data: bytes) -> list[tuple[int, object]]:
    """What the library makes of our bytes, as (channel, frame)."""
    frames: list[tuple[int, object]] = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        frames.append((channel, frame))
        data = data[size:]
    return frames


def header_payload(properties: commands.Basic.Properties, size: int = 5) -> bytes:
    return pamqp.frame.marshal(ContentHeader(body_size=size, properties=properties), 1)[7:-1]


@given(
    exchange=names,
    key=short_text,
    body=st.binary(max_size=3 * FRAME_MAX),
    message_id=st.none() | short_text,
    correlation_id=st.none() | short_text,
    headers=st.dictionaries(st.text(min_size=1, max_size=20), short_text, max_size=3),
)
def test_the_library_reads_what_we_publish(
    exchange: str,
    key: str,
    body: bytes,
    message_id: str | None,
    correlation_id: str | None,
    headers: dict[str, str],
) -> None:
    message = Outgoing(exchange, key, body, message_id, correlation_id, headers)
    (channel, method), (_, header), *bodies = parse(wire.publish_frames(7, message, FRAME_MAX))
    assert channel == 7
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == (exchange, key, False)
    assert isinstance(header, ContentHeader)
    said = header.properties
    assert (said.message_id, said.correlation_id, said.delivery_mode) == (message_id, correlation_id, 2)
    assert said.content_type == "application/json"
    assert (said.headers or {}) == headers
    assert header.body_size == len(body)
    parts = [part.value for _, part in bodies if isinstance(part, ContentBody)]
    assert b"".join(parts) == body
    assert all(len(part) + 8 <= FRAME_MAX for part in parts)


@given(
    properties=st.builds(
        commands.Basic.Properties,
        content_type=st.none() | short_text,
        content_encoding=st.none() | short_text,
        headers=st.none() | st.dictionaries(short_text, st.integers(0, 99) | short_text, max_size=9),
        delivery_mode=st.none() | st.sampled_from([1, 2]),
        priority=st.none() | st.integers(0, 9),
        correlation_id=st.none() | short_text,
        reply_to=st.none() | short_text,
        expiration=st.none() | short_text,
        message_id=st.none() | short_text,
        timestamp=st.none() | st.just(datetime(2026, 11, 22, tzinfo=UTC)),
        message_type=st.none() | short_text,
        user_id=st.none() | short_text,
        app_id=st.none() | short_text,
    ),
    size=st.integers(0, 2**40),
)
def test_we_read_the_properties_the_library_writes(properties: commands.Basic.Properties, size: int) -> None:
    payload = b"before" + header_payload(properties, size)
    read_size, read = wire.read_content_header(payload, len(b"before"), len(payload))
    assert read_size == size
    assert read.reply_to == (properties.reply_to or None)
    assert read.correlation_id == (properties.correlation_id or None)
    assert read.message_id == (properties.message_id or None)
    assert read.user_id == (properties.user_id or None)
    assert dict(read.headers) == (properties.headers or {})


@given(st.binary(max_size=60))
def test_properties_that_make_no_sense_are_taken_as_absent_and_raise_nothing(noise: bytes) -> None:
    payload = header_payload(commands.Basic.Properties())[:12] + b"\xff\xf8" + noise
    size, read = wire.read_content_header(payload, 0, len(payload))
    assert size == 5
    dict(read.headers)


@given(tag=st.integers(1, 2**63 - 1), redelivered=st.booleans(), exchange=names, key=short_text)
def test_we_read_a_delivery_as_the_library_writes_it(tag: int, redelivered: bool, exchange: str, key: str) -> None:  # noqa: FBT001 - drawn
    frame = commands.Basic.Deliver("ctag1.x", tag, redelivered, exchange, key)
    payload = pamqp.frame.marshal(frame, 1)[7:-1]
    assert payload[:4] == wire.DELIVER
    read_tag, read_redelivered, origin = wire.read_deliver(payload, 0, len(payload))
    assert (read_tag, read_redelivered) == (tag, redelivered)
    message = wire.Message(tag, redelivered, origin, wire.Properties(), b"")
    assert message.exchange_and_key() == (exchange, key)


@given(channel=st.integers(1, 65535), tag=st.integers(1, 2**63 - 1), multiple=st.booleans())
def test_acknowledgements_are_written_and_confirms_read_as_the_library_does(
    channel: int,
    tag: int,
    multiple: bool,  # noqa: FBT001 - drawn
) -> None:
    assert wire.ack_frame(channel, tag) == pamqp.frame.marshal(commands.Basic.Ack(tag, multiple=True), channel)
    confirm = pamqp.frame.marshal(commands.Basic.Nack(tag, multiple, requeue=False), 1)[7:-1]
    assert confirm[:4] == wire.NACK
    assert wire.read_confirm(confirm, 0, len(confirm)) == (tag, multiple)


def test_a_property_that_no_database_could_keep_is_read_with_its_bad_characters_replaced() -> None:
    payload = header_payload(commands.Basic.Properties(correlation_id="a\0b")).replace(b"b", b"\xff")
    _, read = wire.read_content_header(payload, 0, len(payload))
    assert read.correlation_id == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_a_routing_key_too_long_for_amqp_is_cut_and_not_refused() -> None:
    message = Outgoing("nodeledger.outcomes", "claim.applied." + "n" * 255, b"{}")
    _, method = parse(wire.publish_frames(1, message, FRAME_MAX))[0]
    assert isinstance(method, commands.Basic.Publish)
    assert method.routing_key == message.routing_key[:255]
