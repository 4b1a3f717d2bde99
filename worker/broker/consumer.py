"""Taking commands: a channel for each shard, so that each has its own order, its own window and its own fate.

A callback here only puts a delivery where the engine finds it. Whoever
finished deliveries says so with :meth:`Consumer.settle`; what that means for
the broker is worked out once per turn of the event loop, for all channels in
one write.

A channel is never told to cancel its consumer: on a queue with a single
active consumer that would let the next one begin behind messages which are
still unfinished here. Closing the channel hands all of them over, in order.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from schemas.routing import command_queue
from worker.broker.tap import Deliveries
from worker.broker.watermark import Watermark
from worker.broker.wire import ack_frame
from worker.engine.ports import Delivery
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aio_pika.abc import AbstractChannel

    from worker.broker.link import Link
    from worker.broker.wire import Message

_log = get_logger(__name__)

# A window counts messages, whatever their size; this bounds the memory that hostile ones can take, as it is reckoned.
HELD_MAX_BYTES: Final = 64 * 1024 * 1024
REGISTER_SECONDS: Final = 3.0


@dataclass(slots=True)
class ConsumerCounts:
    """What has passed, since the start of the process."""

    delivered: int = 0
    redelivered: int = 0
    settled: int = 0
    stale: int = 0
    ack_frames: int = 0


@dataclass(slots=True, eq=False)
class ConsumingChannel:
    """One registration on one queue, over one link; dead with either."""

    shard: int
    link: Link
    watermark: Watermark = field(default_factory=Watermark)
    channel: AbstractChannel | None = None
    registered: bool = False
    taking: bool = True
    held_bytes: int = 0
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    async def drain(self, deadline: float) -> bool:
        """Take no more and wait, until loop time ``deadline``, for what was handed out; false if some is left."""
        self.taking = False
        if self.watermark.unfinished:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.drained.wait()
            except TimeoutError:
                return False
        return True

    def acknowledge(self) -> bytes:
        """The frame that acknowledges what is newly finished; empty if nothing is."""
        if not self.taking and not self.watermark.unfinished:
            self.drained.set()
        tag = self.watermark.take()
        if tag is None or self.channel is None or self.channel.number is None:
            return b""
        return ack_frame(self.channel.number, tag)


class Consumer:
    """The channels of all shards, over whichever link there is.

    Args:
        shards: the shards to stand by on.
        prefetch: how many unacknowledged deliveries the broker may have sent per shard.
        sink: takes each delivery, in order per shard; must not block or raise.
    """

    def __init__(self, shards: Iterable[int], prefetch: int, sink: Callable[[Delivery], None]) -> None:
        self.counts = ConsumerCounts()
        self.paused = False
        self._shards = tuple(shards)
        self._prefetch = prefetch
        self._sink = sink
        self._channels: dict[int, ConsumingChannel] = {}
        self._link: Link | None = None
        self._dirty: set[ConsumingChannel] = set()
        self._held_bytes = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def active(self) -> frozenset[int]:
        """Shards that have delivered something to this registration: the broker made us their active consumer."""
        return frozenset(shard for shard, channel in self._channels.items() if channel.watermark.delivered)

    @property
    def unfinished(self) -> int:
        """Deliveries handed out and not settled."""
        return sum(channel.watermark.unfinished for channel in self._channels.values())

    @property
    def waiting(self) -> frozenset[int]:
        """Shards whose queue has not answered our registration; one without a majority of its members does not."""
        return frozenset(shard for shard, channel in self._channels.items() if not channel.registered)

    async def attach(self, link: Link) -> None:
        """Register on every shard over a new link; those that take their time are not waited for."""
        self._link = link
        await self._open_all()

    def detach(self, link: Link) -> None:
        """The link is gone, and with it what it had delivered: the broker will deliver it again."""
        if self._link is link:
            self._link = None
        for shard, channel in list(self._channels.items()):
            if channel.link is link:
                channel.drained.set()
                del self._channels[shard]
        self._held_bytes = 0

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Mark deliveries as finished; those of a channel that is gone are counted and otherwise forgotten."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        for delivery in deliveries:
            channel = cast("ConsumingChannel", delivery.source)
            channel.watermark.finish(delivery.tag)
            channel.held_bytes -= delivery.weight
            self._dirty.add(channel)
        self.counts.settled += len(deliveries)

    async def yield_shard(self, shard: int, *, timeout: float) -> None:  # noqa: ASYNC109 - a budget for draining, not for the call
        """Hand a shard to the next worker in line and stand by behind the others.

        Waits up to ``timeout`` seconds for what was handed out; then closes the
        channel all the same, and the ids keep the second execution harmless.
        """
        await self._close(shard, self._loop.time() + timeout)
        await self._open(shard)

    async def pause(self, *, timeout: float) -> None:  # noqa: ASYNC109 - a budget for draining, not for the call
        """Leave all shards to others until :meth:`resume`; returns when what was handed out is settled or late."""
        self.paused = True
        deadline = self._loop.time() + timeout
        await asyncio.gather(*(self._close(shard, deadline) for shard in list(self._channels)))

    async def resume(self) -> None:
        """Stand by on all shards again."""
        self.paused = False
        await self._open_all()

    async def _open_all(self) -> None:
        opening = {asyncio.create_task(self._open(shard)) for shard in self._shards}
        _, late = await asyncio.wait(opening, timeout=REGISTER_SECONDS)
        for task in late:
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        if late:
            _log.warning("some queues do not answer", shards=sorted(self.waiting))

    async def _open(self, shard: int) -> None:
        """Register on a shard's queue; if that fails the connection is given up, and the next one registers anew."""
        link = self._link
        present = self._channels.get(shard)
        if link is None or self.paused or (present is not None and present.link is link):
            return
        try:
            await self._register(shard, link)
        except Exception as error:  # noqa: BLE001 - the library's errors have no common base, and all mean "again"
            _log.warning("could not register on a shard", shard=shard, error=str(error))
            link.abort()

    async def _register(self, shard: int, link: Link) -> None:
        channel = ConsumingChannel(shard, link)
        self._channels[shard] = channel
        frames = Deliveries(lambda message: self._take(channel, message), link.abort)
        # Known before the first delivery, which may come and be settled before consuming has returned.
        channel.channel = await link.channel(frames)
        if self._channels.get(shard) is channel:
            await link.consume(channel.channel, command_queue(shard), self._prefetch)
            channel.registered = True
        else:
            await link.close_channel(channel.channel)

    async def _close(self, shard: int, deadline: float) -> None:
        channel = self._channels.get(shard)
        if channel is None:
            return
        if not await channel.drain(deadline):
            left = channel.watermark.unfinished
            _log.info("a shard is handed over before all is finished", shard=shard, unfinished=left)
        self._flush()
        if self._channels.get(shard) is channel:
            del self._channels[shard]
        channel.link.tap.resume()  # the broker's answer has to be read
        if channel.channel is not None:
            await channel.link.close_channel(channel.channel)

    def _take(self, channel: ConsumingChannel, message: Message) -> None:
        if not channel.taking:
            return
        channel.watermark.deliver(message.tag)
        self.counts.delivered += 1
        self.counts.redelivered += message.redelivered
        said = message.properties
        weight = message.weight_parsed
        channel.held_bytes += weight
        self._held_bytes += weight
        if self._held_bytes > HELD_MAX_BYTES:
            channel.link.tap.pause()
        self._sink(
            Delivery(
                shard=channel.shard,
                body=message.body,
                tag=message.tag,
                source=channel,
                redelivered=message.redelivered,
                received_at=channel.link.tap.now,
                reply_to=said.reply_to,
                correlation_id=said.correlation_id,
                user_id=said.user_id,
                headers=said.headers,
                whole=message.whole,
                weight=weight,
            )
        )

    def _flush(self) -> None:
        frames: dict[Link, bytes] = {}
        for channel in self._dirty:
            if self._channels.get(channel.shard) is not channel or not channel.link.alive:
                channel.drained.set()
                self.counts.stale += 1
            elif frame := channel.acknowledge():
                frames[channel.link] = frames.get(channel.link, b"") + frame
                self.counts.ack_frames += 1
        self._dirty.clear()
        for link, data in frames.items():
            link.write(data)
        self._held_bytes = sum(channel.held_bytes for channel in self._channels.values())
        if self._link is not None and self._held_bytes <= HELD_MAX_BYTES // 2:
            self._link.tap.resume()
