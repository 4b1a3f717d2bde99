"""One connection to the broker, kept alive: built whole, lost whole, built again with a jittered pause."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final, Protocol, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPConnectionError
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from schemas.backoff import Backoff
from schemas.errors import BrokerAwayError, UnroutableError
from schemas.stopping import InnerCancelledError, ended, run_within

BACKOFF: Final = Backoff(0.1, 10.0)
"""A broker that starts again is not met by all clients at once, and waits ten seconds at most for each."""
CLOSE_SECONDS: Final = 2.0
"""What the broker may take to answer a close; nothing is lost without it."""
CONNECT_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 20

_ADDRESS: Final = "NODELEDGER_AMQP_URL"

T = TypeVar("T")


def addresses(given: str | Sequence[str] | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The addresses of the broker's nodes: given, or of ``NODELEDGER_AMQP_URL`` or the file that its ``_FILE`` names.

    Raises:
        ValueError: there is none.
    """
    if given is None:
        file = environment.get(f"{_ADDRESS}_FILE")
        given = Path(file).read_text("utf-8") if file else environment.get(_ADDRESS, "")
    parts = [given] if isinstance(given, str) else list(given)
    found = [one for text in parts for one in re.split(r"[\s,]+(?=amqps?://)", text.strip(" \t\r\n,")) if one]
    if not found:
        raise ValueError(f"where is the broker? Give its address, or set {_ADDRESS}")
    return tuple(found)


async def asked(work: Awaitable[T], seconds: float = CONNECT_SECONDS) -> T:
    """What the library makes of a request; it cancels who waits for a connection that is gone.

    Raises:
        BrokerAwayError: there is no answer in time, or the connection is gone.
    """
    try:
        return await run_within(work, seconds)
    except TimeoutError:
        raise BrokerAwayError(f"the broker does not answer within {seconds:g} s") from None
    except InnerCancelledError:
        raise BrokerAwayError("the connection to the broker was lost") from None


class Socket(TransportFactory):
    """Opens the socket as the library does, and can drop it."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the broker; see aiormq's ``TransportFactory``."""
        opening = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await opening.create(url, **kwargs)
        return reader, self._writer

    def abort(self) -> None:
        """Drop the socket at once, if it was opened."""
        if self._writer is not None:
            with suppress(AttributeError):  # a TLS transport that the other side has closed has let go of its socket
                self._writer.transport.abort()


class Link:
    """A live connection; ``lost`` is set, with ``why``, once it or one of its channels is gone."""

    def __init__(self, connection: aio_pika.Connection) -> None:
        self.connection = connection
        self._socket = Socket()
        connection.kwargs["transport_factory"] = self._socket
        self.lost = asyncio.Event()
        self.why: BaseException | None = None
        connection.close_callbacks.add(self.on_closed)

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel whose loss is the link's."""
        channel = self.connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await asked(channel.initialize())
        channel.close_callbacks.add(self.on_closed)
        return channel

    async def scratch_channel(self) -> AbstractChannel:
        """Open a channel that the broker may close without consequences."""
        channel = self.connection.channel(publisher_confirms=False)
        await asked(channel.initialize())
        return channel

    def drop(self, why: BaseException) -> None:
        """Give the connection up; the session builds the next."""
        self.why = self.why or why
        self.lost.set()

    async def close(self) -> None:
        """Close in good order, or give up after a moment."""
        closing = asyncio.ensure_future(self.connection.close())
        try:
            await asyncio.wait((closing,), timeout=CLOSE_SECONDS)
        finally:
            # The library loses a cancellation, and would keep a loop that closes waiting.
            self._socket.abort()
            await ended((closing,), CLOSE_SECONDS)

    def on_closed(self, _closed: object, error: BaseException | None = None) -> None:
        """The connection, or a channel that it is no use without, was closed."""
        self.drop(error or BrokerAwayError("the connection to the broker was lost"))


class Part(Protocol):
    """Something that works over the session's link."""

    async def attach(self, link: Link) -> None:
        """Open what it needs on a new link."""

    def detach(self, link: Link) -> None:
        """The link is gone."""


class Session:
    """The supervisor of one connection, and of the parts that work over it."""

    def __init__(self, urls: Sequence[str], tls: SSLContext | None, name: str) -> None:
        self.link: Link | None = None
        self.parts: list[Part] = []
        self.losses = 0
        self._urls = urls
        self._tls = tls
        self._name = name
        self._ready = asyncio.Event()
        self._failed = asyncio.Event()
        self._last: BaseException | None = None
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self, attempts: int | None) -> None:
        """Connect, and from then on keep connected.

        Args:
            attempts: how many rounds over all addresses to make at first; ``None`` is without end.

        Raises:
            BrokerAwayError: it cannot be reached, or does not let us in.
        """
        first = None if attempts is None else attempts * len(self._urls)
        self._supervisor = asyncio.create_task(self._supervise(first), name="nodeledger-client")
        waits = [asyncio.ensure_future(event.wait()) for event in (self._ready, self._failed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(waits, CLOSE_SECONDS)
        if not self._ready.is_set():
            if isinstance(self._last, UnroutableError):
                raise self._last
            raise BrokerAwayError(f"cannot reach the broker ({_line(self._last)})") from self._last

    async def ready(self) -> Link:
        """The live link, as soon as there is one."""
        while self.link is None:
            await self._ready.wait()
        return self.link

    async def add(self, part: Part) -> None:
        """Have a part work over this link and all that follow.

        Raises:
            BrokerAwayError, UnroutableError: it cannot work.
        """
        link = await self.ready()
        self.parts.append(part)
        try:
            await part.attach(link)
        except BaseException:
            self.parts.remove(part)
            raise

    async def close(self) -> None:
        """End the supervisor and its connection, within seconds."""
        if self._supervisor is not None:
            await ended([self._supervisor], 3 * CLOSE_SECONDS)
            self._supervisor = None

    async def _supervise(self, first: int | None) -> None:
        attempt = failures = 0
        while True:
            url = URL(self._urls[attempt % len(self._urls)])
            attempt += 1
            try:
                await self._live(url)
                failures = 0
            except Exception as error:  # noqa: BLE001 - the library's errors have no common base, and all mean "again"
                self._last = error
                failures += 1
            if first is not None and not self.losses and failures >= first:
                self._failed.set()
                return
            await asyncio.sleep(BACKOFF.seconds(max(1, failures)))

    async def _live(self, url: URL) -> None:
        """Connect, let the parts open what they need, and wait for the end; raises if it does not come so far."""
        beat = url if "heartbeat" in url.query else url.update_query(heartbeat=str(HEARTBEAT_SECONDS))
        properties: Any = {"connection_name": self._name}
        connection = aio_pika.Connection(beat, ssl_context=self._tls, client_properties=properties)
        link = Link(connection)
        try:
            await asked(connection.connect())
            await self._attach(link)
            self.link = link
            self._ready.set()
            await link.lost.wait()
            self.losses += 1
        finally:
            self._ready.clear()
            self.link = None
            for part in self.parts:
                part.detach(link)
            await link.close()

    async def _attach(self, link: Link) -> None:
        """Attach all parts; a link that dies meanwhile ends this at once."""
        opening = asyncio.ensure_future(self._attach_all(link))
        dying = asyncio.ensure_future(link.lost.wait())
        try:
            await asyncio.wait((opening, dying), timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise link.why or BrokerAwayError("the broker does not open our channels")
            await asked(opening)
        finally:
            await ended((opening, dying), CLOSE_SECONDS)

    async def _attach_all(self, link: Link) -> None:
        for part in list(self.parts):
            await part.attach(link)


def _line(error: BaseException | None) -> str:
    if isinstance(error, AMQPConnectionError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
