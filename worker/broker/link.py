"""One live connection to the broker, and how to have done with it, whatever the library is at."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aio_pika

from schemas.stopping import InnerCancelledError, run_within
from worker.broker.tap import Tap, TapTransport
from worker.engine.ports import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aio_pika.abc import AbstractChannel
    from yarl import URL

    from worker.broker.tap import FrameSink

CLOSE_SECONDS: Final = 2.0
"""What the broker may take to answer a close. Nothing is lost without it: the broker sees the socket go."""

_T = TypeVar("_T")


async def asked(work: Awaitable[_T], seconds: float | None = None) -> _T:
    """What the library makes of a request, within so many seconds.

    The library cancels what waits for a connection that is gone, and may end
    with an error of its own where it was cancelled itself. Neither says
    anything about whoever asks, who is cancelled by nobody else than its owner.

    Raises:
        BrokerUnavailable: there is no answer in time, or the connection is gone.
    """
    try:
        return await run_within(work, seconds)
    except TimeoutError:
        raise BrokerUnavailable(f"the broker does not answer within {seconds:g} s") from None
    except InnerCancelledError:
        raise BrokerUnavailable("the connection to the broker was lost") from None


class TappedConnection(aio_pika.Connection):
    """A connection of the library with our tap in its transport."""

    def __init__(self, url: URL, **kwargs: Any) -> None:
        super().__init__(url, **kwargs)
        self.tapped = TapTransport()
        self.kwargs["transport_factory"] = self.tapped

    async def end(self) -> None:
        """Close in good order, or give up after a moment."""
        try:
            with suppress(Exception):  # whatever it is, the connection is not wanted any more
                await asked(self.close(), CLOSE_SECONDS)
        finally:
            self.tapped.abort()


class Link:
    """A live connection of one generation."""

    def __init__(self, connection: TappedConnection, generation: int) -> None:
        if connection.transport is None:
            detail = "the connection was lost while it was opened"
            raise BrokerUnavailable(detail)
        self.generation = generation
        self.failure = "the connection to the broker was lost"
        self.failed_channel: object = None
        self.connection = connection
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
        await asked(channel.initialize())
        channel.close_callbacks.add(self._on_channel_closed)
        if sink is not None and channel.number is not None:
            self.tap.sinks[channel.number] = sink
        return channel

    async def consume(self, channel: AbstractChannel, queue: str, prefetch: int) -> None:
        """Consume a queue on a channel; what is delivered goes to the channel's sink."""
        await asked(channel.set_qos(prefetch))
        await asked((await channel.get_queue(queue, ensure=False)).consume(_left_to_the_tap))

    async def scratch_channel(self) -> AbstractChannel:
        """Open a channel that may be closed by the broker without consequences."""
        channel = self.connection.channel(publisher_confirms=False)
        await asked(channel.initialize())
        return channel

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close a channel on purpose; what it has not acknowledged goes back to its queue, in order."""
        channel.close_callbacks.discard(self._on_channel_closed)
        number = channel.number
        with suppress(Exception):  # a channel that cannot be closed is gone already
            await asked(channel.close(), CLOSE_SECONDS)
        if number is not None:
            self.tap.sinks.pop(number, None)

    def abort(self) -> None:
        """Give the connection up at once; the session builds the next."""
        self._tapped.abort()

    async def close(self) -> None:
        """Close in good order, or give up after a moment."""
        await self.connection.end()

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
