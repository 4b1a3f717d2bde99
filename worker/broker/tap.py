"""A tap in the pipe between the socket and the client library.

The library starts a task, several queue operations and a dozen objects for
each message. The tap sits below it, through the library's own transport hook,
and takes out the frames of the hot path for the channels that asked: messages
delivered, confirms received. All other frames pass through untouched, so that
the library still does everything that is not once per message: connecting,
TLS, authentication, heartbeats, channels, declaring, closing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from uuid import UUID

from aiormq.connection import TransportFactory

from worker.broker.wire import (
    ACK,
    BLOCKED,
    BODY,
    CANCEL,
    DELIVER,
    FRAME_HEAD,
    FRAME_OVERHEAD,
    HEADER,
    HEARTBEAT,
    METHOD,
    NACK,
    UNBLOCKED,
    Message,
    Properties,
    read_confirm,
    read_content_header,
    read_deliver,
)
from worker.engine.ports import Whole
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from yarl import URL

_log = get_logger(__name__)

_SIGN_OF_LIFE_SECONDS: Final = 1.0
# Four times the largest command is kept as it came, for whoever has to find out what it was meant to be.
WHOLE_MAX_BYTES: Final = 1024 * 1024
HEAD_BYTES: Final = 64 * 1024
_NO_PROPERTIES: Final = Properties()
_MAX_REASON_BYTES: Final = 255


class FrameSink(Protocol):
    """Who takes a channel's hot frames."""

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Handle the payload ``data[start:stop]`` of a frame; false to leave it to the library."""


class _Cut:
    """A body that is far too large, as it arrives: its head is kept, and the digest of all of it."""

    __slots__ = ("_digest", "_size", "head")

    def __init__(self, size: int) -> None:
        self._size = size
        self._digest = blake2b(digest_size=16)
        self.head = b""

    def add(self, part: bytes) -> None:
        self._digest.update(part)
        if len(self.head) < HEAD_BYTES:
            self.head += part[: HEAD_BYTES - len(self.head)]

    def whole(self) -> Whole:
        return Whole(self._size, UUID(bytes=self._digest.digest()))


class Deliveries:
    """Puts delivered messages together from their frames.

    Args:
        on_message: called for each message, in order; must not block or raise.
        on_cancelled: called when the broker takes the consumer away.
        properties: what is read of a message beside its body.
        whole_max_bytes: of a larger body only the head is kept.
    """

    __slots__ = (
        "_cut", "_deliver", "_kind", "_on_cancelled", "_on_message", "_parts", "_properties", "_wanted", "_whole_max",
    )  # fmt: skip

    def __init__(
        self,
        on_message: Callable[[Message], None],
        on_cancelled: Callable[[], None],
        *,
        properties: type[Properties] = Properties,
        whole_max_bytes: float = WHOLE_MAX_BYTES,
    ) -> None:
        self._kind = properties
        self._whole_max = whole_max_bytes
        self._on_message = on_message
        self._on_cancelled = on_cancelled
        self._deliver: tuple[int, bool, bytes] | None = None
        self._properties = _NO_PROPERTIES
        self._parts: list[bytes] = []
        self._cut: _Cut | None = None
        self._wanted = 0

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Handle one frame; see :class:`FrameSink`."""
        if kind == METHOD:
            return self._take_method(data, start, stop)
        if self._deliver is None:
            return False
        if kind == HEADER:
            self._wanted, self._properties = read_content_header(data, start, stop, self._kind)
            if self._wanted > self._whole_max:
                self._cut = _Cut(self._wanted)
        elif kind == BODY:
            self._wanted -= stop - start
            if self._cut is None:
                self._parts.append(data[start:stop])
            else:
                self._cut.add(data[start:stop])
        if self._wanted <= 0:
            self._emit(*self._deliver)
        return True

    def _take_method(self, data: bytes, start: int, stop: int) -> bool:
        method = data[start : start + 4]
        if method == DELIVER:
            self._deliver = read_deliver(data, start, stop)
            self._properties = _NO_PROPERTIES
            self._parts = []
            self._cut = None
            return True
        if method == CANCEL:
            self._on_cancelled()
        return False

    def _emit(self, tag: int, redelivered: bool, origin: bytes) -> None:  # noqa: FBT001 - as it came off the wire
        parts, cut = self._parts, self._cut
        self._deliver = self._cut = None
        self._parts = []
        if cut is None:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._on_message(Message(tag, redelivered, origin, self._properties, body))
        else:
            self._on_message(
                Message(
                    tag=tag,
                    redelivered=redelivered,
                    origin=origin,
                    properties=self._properties,
                    body=cut.head,
                    whole=cut.whole(),
                )
            )


class Confirms:
    """Hands a publishing channel's confirms on: number, ``multiple``, and whether the broker took the message."""

    __slots__ = ("_on_confirm",)

    def __init__(self, on_confirm: Callable[[int, bool, bool], None]) -> None:
        self._on_confirm = on_confirm

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Handle one frame; see :class:`FrameSink`."""
        method = data[start : start + 4]
        if kind != METHOD or method not in (ACK, NACK):
            return False
        number, multiple = read_confirm(data, start, stop)
        self._on_confirm(number, multiple, method == ACK)
        return True


class Tap(asyncio.StreamReaderProtocol):
    """The protocol of one connection: splits the stream into frames and sends each where it belongs.

    ``lost`` is set as soon as the socket is gone. ``blocked`` holds the
    broker's reason while it refuses to read what is published here.
    """

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.sinks: dict[int, FrameSink] = {}
        self.lost = asyncio.Event()
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.blocked: str | None = None
        self.paused = False
        self.now = loop.time()
        self._clock = loop.time
        self._passed_at = self.now
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to pause it."""
        super().connection_made(transport)
        self._transport = cast("asyncio.Transport", transport)

    def pause(self) -> None:
        """Read nothing more from the socket; the broker then has to wait."""
        if not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again after :meth:`pause`."""
        if self.paused:
            self.paused = False
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take the frames out of what has arrived; an unfinished one waits for its remainder."""
        self.now = self._clock()
        if self._rest:
            data = self._rest + data
        at, end, sinks = 0, len(data), self.sinks
        while end - at >= FRAME_OVERHEAD:
            kind, channel, length = FRAME_HEAD.unpack_from(data, at)
            stop = at + length + FRAME_OVERHEAD
            if stop > end:
                break
            sink = sinks.get(channel)
            if sink is None or not _given(sink, kind, data, at + FRAME_HEAD.size, stop - 1):
                self._pass_on(data[at:stop], is_control=channel == 0)
            at = stop
        self._rest = data[at:]
        if self.now - self._passed_at > _SIGN_OF_LIFE_SECONDS:
            # The library measures life by the frames it sees, and the broker sends no heartbeats while busy.
            self._pass_on(HEARTBEAT, is_control=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is gone."""
        super().connection_lost(exc)
        self.lost.set()
        self.unblocked.set()

    def _pass_on(self, frame: bytes, *, is_control: bool) -> None:
        self._passed_at = self.now
        if is_control and frame[7:11] == BLOCKED:
            self.blocked = frame[12 : 12 + min(frame[11], _MAX_REASON_BYTES)].decode(errors="replace")
            self.unblocked.clear()
        elif is_control and frame[7:11] == UNBLOCKED:
            self.blocked = None
            self.unblocked.set()
        super().data_received(frame)


def _given(sink: FrameSink, kind: int, data: bytes, start: int, stop: int) -> bool:
    """Give a frame to its sink. What leaves from here ends the connection, and what one message holds must not."""
    try:
        return sink.take(kind, data, start, stop)
    except Exception:  # noqa: BLE001 - whatever a message makes the code raise is that message's fault
        _log.exception("a frame could not be taken; the connection goes on")
        return True


class TapTransport(TransportFactory):
    """Opens the socket, plain or TLS, with a :class:`Tap` on it."""

    tap: Tap
    writer: asyncio.StreamWriter

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the broker; see aiormq's ``TransportFactory``."""
        provider = kwargs.pop("ssl_context_provider")
        context = cast("ssl.SSLContext | None", await provider.get_context() if url.scheme == "amqps" else None)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        self.tap = Tap(reader, loop)
        host, port = str(url.host), url.port or 0
        transport, _ = await loop.create_connection(lambda: self.tap, host, port, ssl=context, **kwargs)
        self.writer = asyncio.StreamWriter(transport, self.tap, reader, loop)
        return reader, self.writer

    def abort(self) -> None:
        """Drop the socket at once, if it was opened."""
        if hasattr(self, "writer"):
            with suppress(AttributeError):  # a TLS transport that the other side has closed has let go of its socket
                self.writer.transport.abort()
