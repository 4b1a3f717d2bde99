"""The few AMQP 0-9-1 frames that every message costs, as bytes.

A message that comes in and its outcome that goes out are five frames in and
three out. The client library spends most of a message's time on taking these
apart into objects; here they are read and written by hand. Everything else of
the protocol is left to the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception, named like one
from typing import TYPE_CHECKING, Final

from schemas import MAX_BODY_BYTES
from worker.broker.tables import NO_HEADERS, TABLE_MAX_BYTES, Headers

if TYPE_CHECKING:
    from worker.engine.ports import Outgoing, Whole

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
END: Final = b"\xce"
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00" + END

FRAME_HEAD: Final = Struct(">BHI")
FRAME_OVERHEAD: Final = FRAME_HEAD.size + len(END)

BLOCKED: Final = b"\x00\x0a\x00\x3c"
UNBLOCKED: Final = b"\x00\x0a\x00\x3d"
CANCEL: Final = b"\x00\x3c\x00\x1e"
DELIVER: Final = b"\x00\x3c\x00\x3c"
ACK: Final = b"\x00\x3c\x00\x50"
NACK: Final = b"\x00\x3c\x00\x78"

_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
_TAG_AND_BITS: Final = Struct(">QB")
_CONTENT_HEAD: Final = Struct(">HHQH")
_ACK_FRAME: Final = Struct(">BHI4sQBc")
_LONG: Final = Struct(">I")

_CONTENT_CLASS: Final = 60
_HAS_TYPE: Final = 1 << 15
_HAS_HEADERS: Final = 1 << 13
_HAS_MODE: Final = 1 << 12
_HAS_CORRELATION: Final = 1 << 10
_HAS_MESSAGE_ID: Final = 1 << 7
_JSON_TYPE: Final = b"\x10application/json"
_PERSISTENT: Final = b"\x02"
_SHORT_MAX: Final = 255
# Measured of many small parts, which weigh most: commands up to 17, header tables up to 21 times their bytes.
_PARSED_WEIGHT: Final = 16

# The properties of a message in their order on the wire, with the bit that says they are there.
_PROPERTIES: Final = (
    (_HAS_TYPE, "content_type"),
    (1 << 14, "content_encoding"),
    (_HAS_HEADERS, "headers"),
    (_HAS_MODE, ""),
    (1 << 11, ""),
    (_HAS_CORRELATION, "correlation_id"),
    (1 << 9, "reply_to"),
    (1 << 8, "expiration"),
    (_HAS_MESSAGE_ID, "message_id"),
    (1 << 6, "timestamp"),
    (1 << 5, "type"),
    (1 << 4, "user_id"),
    (1 << 3, "app_id"),
)
_TIMESTAMP_BYTES: Final = 8


@dataclass(slots=True)
class Properties:
    """What a message says about itself beside its body; only what this product looks at."""

    headers: Headers = field(default_factory=lambda: NO_HEADERS)
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None
    user_id: str | None = None


@dataclass(slots=True)
class AllProperties(Properties):
    """What a message says about itself as far as it can be said again; ``timestamp`` in seconds."""

    content_type: str | None = None
    content_encoding: str | None = None
    expiration: str | None = None
    timestamp: int | None = None
    type: str | None = None
    app_id: str | None = None


@dataclass(slots=True)
class Message:
    """A delivered message; ``origin`` holds the names of its exchange and routing key, not yet taken apart.

    Of a body that is far too large, ``body`` is the head and ``whole`` tells the rest.
    """

    tag: int
    redelivered: bool
    origin: bytes
    properties: Properties
    body: bytes
    whole: Whole | None = None

    @property
    def weight(self) -> int:
        """Bytes of memory that the message is reckoned to take, its headers read."""
        return len(self.body) + _PARSED_WEIGHT * self.properties.headers.size

    @property
    def weight_parsed(self) -> int:
        """The same, with the command that its body may be."""
        size = len(self.body)
        return self.weight + (_PARSED_WEIGHT * size if size <= MAX_BODY_BYTES else 0)

    def exchange_and_key(self) -> tuple[str, str]:
        """Where the message was published to."""
        exchange, rest = _cut_short(self.origin)
        key, _ = _cut_short(rest)
        return exchange.decode(errors="replace"), key.decode(errors="replace")


def _cut_short(raw: bytes) -> tuple[bytes, bytes]:
    """A short string with its length before it, or as much of one as there is; and what follows it."""
    stop = 1 + raw[0] if raw else 0
    return raw[1:stop], raw[stop:]


def read_deliver(data: bytes, start: int, stop: int) -> tuple[int, bool, bytes]:
    """Delivery tag, whether redelivered, and origin of a ``basic.deliver`` method.

    Raises:
        IndexError: it is longer than its frame.
    """
    at = start + 5 + data[start + 4]
    end = at + _TAG_AND_BITS.size
    if end > stop:
        raise IndexError("longer than its frame")
    tag, bits = _TAG_AND_BITS.unpack_from(data, at)
    return tag, bool(bits & 1), data[end:stop]


def read_confirm(data: bytes, start: int, stop: int) -> tuple[int, bool]:
    """Publish number and ``multiple`` of a ``basic.ack`` or ``basic.nack`` method.

    Raises:
        IndexError: it is longer than its frame.
    """
    at = start + 4
    if at + _TAG_AND_BITS.size > stop:
        raise IndexError("longer than its frame")
    tag, bits = _TAG_AND_BITS.unpack_from(data, at)
    return tag, bool(bits & 1)


def read_content_header(
    data: bytes, start: int, stop: int, kind: Callable[[], Properties] = Properties
) -> tuple[int, Properties]:
    """Body size in bytes, and the properties that ``kind`` has; what cannot be read is taken as absent."""
    size = 0
    begin = start + _CONTENT_HEAD.size
    if begin > stop:  # what follows is the next frame's
        return size, kind()
    try:
        _, _, size, flags = _CONTENT_HEAD.unpack_from(data, start)
        return size, _read_properties(kind(), data, begin, stop, flags)
    except (StructError, IndexError):
        return size, kind()


def _read_properties(properties: Properties, data: bytes, at: int, stop: int, flags: int) -> Properties:
    for bit, name in _PROPERTIES:
        if not flags & bit:
            continue
        if name == "headers":
            end = at + 4 + _LONG.unpack_from(data, at)[0]
            if at + 4 < end <= at + TABLE_MAX_BYTES:
                properties.headers = Headers(data[at:end])
        elif not name:
            end = at + 1
        elif name == "timestamp":
            end = at + _TIMESTAMP_BYTES
            if hasattr(properties, name):
                setattr(properties, name, int.from_bytes(data[at:end]))
        else:
            end = at + 1 + data[at]
            if hasattr(properties, name):
                setattr(properties, name, _text(data[at + 1 : end]))
        at = end
        if at > stop:
            raise IndexError
    return properties


def _text(raw: bytes) -> str:
    """A property as every database can keep it: what is no UTF-8, and NUL, stands replaced."""
    return raw.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def ack_frame(channel: int, tag: int, *, multiple: bool = True) -> bytes:
    """``basic.ack`` of everything up to and including ``tag``, or of that delivery alone."""
    return _ACK_FRAME.pack(METHOD, channel, 13, ACK, tag, multiple, END)


def publish_frames(channel: int, message: Outgoing, frame_max: int) -> bytes:
    """A persistent JSON message as method, header and body frames.

    A routing key longer than AMQP's 255 bytes is cut there: a node's name alone may be that long.
    """
    method = b"".join((_PUBLISH, _short(message.exchange), _short(message.routing_key), b"\x00"))
    flags = _HAS_TYPE | _HAS_MODE
    properties = [_JSON_TYPE, _PERSISTENT]
    if message.headers:
        flags |= _HAS_HEADERS
        properties.insert(1, _table(message.headers))
    if message.correlation_id is not None:
        flags |= _HAS_CORRELATION
        properties.append(_short(message.correlation_id))
    if message.message_id is not None:
        flags |= _HAS_MESSAGE_ID
        properties.append(_short(message.message_id))
    body = message.body
    header = _CONTENT_HEAD.pack(_CONTENT_CLASS, 0, len(body), flags) + b"".join(properties)
    room = frame_max - FRAME_OVERHEAD
    parts = [_frame(METHOD, channel, method), _frame(HEADER, channel, header)]
    parts += [_frame(BODY, channel, body[at : at + room]) for at in range(0, len(body), room)]
    return b"".join(parts)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return FRAME_HEAD.pack(kind, channel, len(payload)) + payload + END


def _short(text: str) -> bytes:
    raw = text.encode()[:_SHORT_MAX]
    return bytes((len(raw),)) + raw


def _table(headers: Mapping[str, str]) -> bytes:
    fields = b""
    for name, value in headers.items():
        raw = value.encode()
        fields += _short(name) + b"S" + _LONG.pack(len(raw)) + raw
    return _LONG.pack(len(fields)) + fields
