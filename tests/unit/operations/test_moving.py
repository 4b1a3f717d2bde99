"""What is moved between queues is as it came, whatever its sender put into it."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pamqp.frame
import pytest
from pamqp import commands
from pamqp.header import ContentHeader

from tests.property.test_messages import nested
from worker.broker import wire
from worker.broker.tap import WHOLE_MAX_BYTES, Deliveries
from worker.operations.moving import copy_of

DELIVER = wire.DELIVER + b"\x00" + (1).to_bytes(8) + b"\x00" + b"\x00\x00"


def arrived(header: bytes, body: bytes) -> wire.Message:
    """A message as the mover reads it off the wire."""
    taken: list[wire.Message] = []
    sink = Deliveries(taken.append, lambda: None, properties=wire.AllProperties, whole_max_bytes=math.inf)
    for kind, payload in ((wire.METHOD, DELIVER), (wire.HEADER, header), (wire.BODY, body)):
        assert sink.take(kind, payload, 0, len(payload))
    (message,) = taken
    return message


def header(properties: commands.Basic.Properties, size: int) -> bytes:
    return pamqp.frame.marshal(ContentHeader(body_size=size, properties=properties), 1)[7:-1]


def test_a_copy_says_all_that_the_message_said_of_itself_and_names_its_sender() -> None:
    said = commands.Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={"traceparent": "00-1", "deep": {"a": [1, True]}, "x-delivery-count": 3},
        correlation_id="c",
        reply_to="r",
        expiration="1500",
        message_id="m",
        timestamp=datetime(2026, 11, 22, 7, tzinfo=UTC),
        message_type="t",
        user_id="producer",
        app_id="app",
    )
    copy = copy_of(arrived(header(said, 2), b"{}"), "mover")
    assert copy.body == b"{}"
    again = copy.properties
    assert again.headers == {"traceparent": "00-1", "deep": {"a": [1, True]}, "x-nodeledger-senders": "producer"}
    assert (again.user_id, again.delivery_mode) == ("mover", 2)
    for name in ("content_type", "content_encoding", "correlation_id", "reply_to", "expiration", "message_id",
                 "timestamp", "message_type", "app_id"):  # fmt: skip
        assert getattr(again, name) == getattr(said, name), name


@pytest.mark.parametrize("table", [nested(500), nested(9_000, b"A")], ids=["deep tables", "deeper than any stack"])
def test_headers_that_cannot_be_read_cost_themselves_alone(table: bytes) -> None:
    raw = b"\x00\x3c\x00\x00" + (2).to_bytes(8) + (1 << 13).to_bytes(2) + table
    copy = copy_of(arrived(raw, b"{}"), "mover")
    assert (copy.body, copy.properties.headers) == (b"{}", {"x-nodeledger-senders": ""})
    pamqp.frame.marshal(ContentHeader(body_size=2, properties=copy.properties), 1)


def test_a_large_body_is_moved_whole() -> None:
    body = b"x" * (WHOLE_MAX_BYTES + 1)
    assert copy_of(arrived(header(commands.Basic.Properties(), len(body)), body), None).body == body


@pytest.mark.parametrize("moment", [b"\xff" * 8, b"\x00" * 8])
def test_a_moment_that_no_calendar_has_is_left_out(moment: bytes) -> None:
    raw = b"\x00\x3c\x00\x00" + (2).to_bytes(8) + (1 << 6).to_bytes(2) + moment
    assert copy_of(arrived(raw, b"{}"), None).timestamp in {None, datetime(1970, 1, 1, tzinfo=UTC)}


def test_a_property_that_is_no_text_still_fits_once_it_is_replaced() -> None:
    raw = b"\x00\x3c\x00\x00" + (2).to_bytes(8) + (1 << 9).to_bytes(2) + b"\xff" + b"\xff" * 255
    assert len((copy_of(arrived(raw, b"{}"), None).reply_to or "").encode()) == 255
