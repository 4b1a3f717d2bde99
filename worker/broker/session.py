"""One connection to the broker, kept alive: built whole, lost whole, built again.

aio-pika's robust connection restores channels behind the back of those who
use them, at a fixed interval for all clients alike. Here a connection that is
lost takes its channels and everything unacknowledged with it; the next one
has a higher generation and starts from nothing, after a jittered pause.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aio_pika
from aiormq.tools import censor_url
from yarl import URL

from worker.backoff import Backoff
from worker.broker.tap import Tap, TapTransport
from worker.engine.ports import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from aio_pika.abc import AbstractChannel

    from worker.broker.tap import FrameSink

logger = logging.getLogger(__name__)

BACKOFF: Final = Backoff(0.1, 10.0)
"""A broker that starts again is not met by all workers at once, and waits ten seconds at most for each."""
CLOSE_SECONDS: Final = 5.0
_STEADY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Where the broker is and how to talk to it.

    ``urls`` are tried in turn, so that a cluster's other nodes take over;
    ``name`` is what operators see in the broker's list of connections.
    """

    urls: tuple[str, ...]
    name: str = "nodeledger"
    tls: ssl.SSLContext | None = None
    heartbeat_seconds: int = 20
    connect_seconds: float = 10.0


def tls_context(
    cafile: Path | None = None, certfile: Path | None = None, keyfile: Path | None = None
) -> ssl.SSLContext:
    """A context that verifies the broker, by ``cafile`` or the system's authorities, and can show a certificate.

    Raises:
        OSError: a file cannot be read or is no certificate or key.
    """
    context = ssl.create_default_context(cafile=cafile)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certfile is not None:
        context.load_cert_chain(certfile, keyfile)
    return context


class _TappedConnection(aio_pika.Connection):
    """A connection of the library with our tap in its transport."""

    def __init__(self, url: URL, **kwargs: Any) -> None:
        super().__init__(url, **kwargs)
        self.tapped = TapTransport()
        self.kwargs["transport_factory"] = self.tapped


class Link:
    """A live connection of one generation."""

    def __init__(self, connection: _TappedConnection, generation: int) -> None:
        if connection.transport is None:
            detail = "the connection was lost while it was opened"
            raise BrokerUnavailable(detail)
        self.generation = generation
        self.failure = "the connection to the broker was lost"
        self.failed_channel: object = None
        self.connection: aio_pika.Connection = connection
        connection.close_callbacks.add(self._on_connection_closed)
        self._under = connection.transport.connection
        self._tapped = connection.tapped

    @property
    def tap(self) -> Tap:
        """The tap of this connection."""
        return self._tapped.tap

    @property
    def alive(self) -> bool:
        """Whether anything can still be sent."""
        return not self.tap.lost.is_set() and not self._tapped.writer.is_closing()

    @property
    def frame_max(self) -> int:
        """The largest frame in bytes that the broker takes."""
        return self._under.connection_tune.frame_max or 131_072

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version, such as ``(3, 10, 8)``; empty if it does not say."""
        text = str(self._under.server_properties.get("version", ""))
        return tuple(int(part) for part in text.partition("-")[0].split(".") if part.isdigit())

    def write(self, frames: bytes) -> bool:
        """Send whole frames at once; false if the connection is gone."""
        if not self.alive:
            return False
        self._tapped.writer.write(frames)
        return True

    async def drain(self) -> None:
        """Wait until the socket takes more.

        Raises:
            BrokerUnavailable: the connection is gone.
        """
        try:
            await self._tapped.writer.drain()
        except OSError as error:
            raise BrokerUnavailable(str(error)) from error

    async def channel(self, sink: FrameSink | None = None, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel whose hot frames go to ``sink``."""
        channel = self.connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize()
        channel.close_callbacks.add(self._on_channel_closed)
        if sink is not None and channel.number is not None:
            self.tap.sinks[channel.number] = sink
        return channel

    async def consume(self, channel: AbstractChannel, queue: str, prefetch: int) -> None:
        """Consume a queue on a channel; what is delivered goes to the channel's sink."""
        await channel.set_qos(prefetch)
        await (await channel.get_queue(queue, ensure=False)).consume(_left_to_the_tap)

    async def scratch_channel(self) -> AbstractChannel:
        """Open a channel that may be closed by the broker without consequences."""
        channel = self.connection.channel(publisher_confirms=False)
        await channel.initialize()
        return channel

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close a channel on purpose; what it has not acknowledged goes back to its queue, in order."""
        channel.close_callbacks.discard(self._on_channel_closed)
        number = channel.number
        with suppress(Exception):  # a channel that cannot be closed is gone already
            await asyncio.wait_for(channel.close(), CLOSE_SECONDS)
        if number is not None:
            self.tap.sinks.pop(number, None)

    def abort(self) -> None:
        """Give the connection up at once; the session builds the next."""
        self._tapped.writer.transport.abort()

    async def close(self) -> None:
        """Close in good order, or give up after a few seconds."""
        try:
            await asyncio.wait_for(self.connection.close(), CLOSE_SECONDS)
        except Exception:  # noqa: BLE001 - whatever it is, the connection is not wanted any more
            self.abort()

    def _on_connection_closed(self, _connection: object, reason: BaseException | None) -> None:
        if self.failed_channel is None and reason is not None:
            self.failure = f"the broker closed the connection: {reason}"

    def _on_channel_closed(self, channel: object, reason: BaseException | None) -> None:
        if self.alive:
            self.failed_channel = channel
            self.failure = f"the broker closed a channel: {reason}"
            self.abort()


async def _left_to_the_tap(_message: object) -> None:
    """What the library calls for a message that the tap did not take: one after its channel was closed."""


class Session:
    """The supervisor of one connection.

    Args:
        options: where the broker is.
        role: what this connection is for; part of its name at the broker.
        on_ready: opens the channels on each new link; a link counts as ready when it returns.
        on_lost: told when a link is gone, before the next is tried.
    """

    def __init__(
        self,
        options: BrokerOptions,
        role: str,
        *,
        on_ready: Callable[[Link], Awaitable[None]],
        on_lost: Callable[[Link], None],
    ) -> None:
        self.link: Link | None = None
        self.generation = 0
        self.last_error: str | None = None
        self.failures = 0
        self._options = options
        self._role = role
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._ready = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin connecting, and go on forever."""
        self._supervisor = asyncio.create_task(self._supervise(), name=f"broker-{self._role}")

    async def ready(self, timeout: float) -> Link:  # noqa: ASYNC109 - the caller's budget, with our own error
        """The live link, as soon as there is one.

        Raises:
            BrokerUnavailable: there is none within ``timeout`` seconds.
        """
        if self.link is not None and self.link.alive:
            return self.link
        if self.link is not None:
            self._ready.clear()  # it is dead, and the supervisor has yet to notice
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), timeout)
        if self.link is None:
            raise BrokerUnavailable(self.last_error or f"no connection to the broker within {timeout:g} s")
        return self.link

    async def close(self) -> None:
        """Stop supervising and close the connection."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None

    async def _supervise(self) -> None:
        attempt = 0
        while True:
            url = URL(self._options.urls[attempt % len(self._options.urls)])
            started = asyncio.get_running_loop().time()
            try:
                await self._live(url)
            except Exception as error:  # noqa: BLE001 - the library's errors have no common base, and all mean "again"
                self.failures += 1
                self.last_error = f"{censor_url(url)}: {str(error) or type(error).__name__}"
                logger.warning("no connection to the broker", extra={"role": self._role, "error": self.last_error})
            if asyncio.get_running_loop().time() - started > _STEADY_SECONDS:
                attempt = 0
            attempt += 1
            await asyncio.sleep(BACKOFF.seconds(attempt))

    async def _live(self, url: URL) -> None:
        connection = _TappedConnection(
            url.update_query(heartbeat=str(self._options.heartbeat_seconds)),
            ssl_context=self._options.tls,
            client_properties={"connection_name": f"{self._options.name} {self._role}"},
        )
        try:
            await connection.connect(timeout=self._options.connect_seconds)
            self.generation += 1
            link = Link(connection, self.generation)
        except BaseException:
            await connection.close()
            raise
        try:
            await self._set_up(link)
            await link.tap.lost.wait()
            raise BrokerUnavailable(link.failure)
        finally:
            self._ready.clear()
            self.link = None
            self._on_lost(link)
            await link.close()

    async def _set_up(self, link: Link) -> None:
        """Open the channels; a link that dies meanwhile ends this at once instead of at the deadline."""
        opening = asyncio.ensure_future(self._on_ready(link))
        dying = asyncio.ensure_future(link.tap.lost.wait())
        try:
            done, _ = await asyncio.wait(
                (opening, dying), timeout=self._options.connect_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if opening not in done:
                raise BrokerUnavailable(link.failure if done else "the broker does not open our channels")
            await opening
        finally:
            opening.cancel()
            dying.cancel()
            await asyncio.gather(opening, dying, return_exceptions=True)
        self.link = link
        self.last_error = None
        self._ready.set()
        logger.info("connected to the broker", extra={"role": self._role, "generation": link.generation})
