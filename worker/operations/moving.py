"""Moving messages between queues: in order, and each out of the old queue only once it is safe in the new one.

Messages are read below the client library, as commands are: whatever their
senders put into their headers must not end the connection of who moves them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage
from aiormq.exceptions import ChannelNotFoundEntity

from worker.broker.link import asked
from worker.broker.tables import TABLE_MAX_BYTES, write_tables
from worker.broker.tap import Deliveries
from worker.broker.wire import AllProperties, ack_frame
from worker.engine.ports import SENDERS_HEADER, senders_line

if TYPE_CHECKING:
    from worker.broker.link import Link
    from worker.broker.wire import Message

_WINDOW: Final = 256
_QUIET_SECONDS: Final = 0.5
_CONFIRM_SECONDS: Final = 30.0
_BROKERS_OWN: Final = ("x-delivery-count", "x-acquired-count")
_SHORT_MAX: Final = 255  # bytes of a property, by AMQP


async def depth(link: Link, queue: str) -> tuple[int, int]:
    """How many messages wait in a queue, and how many consumers it has; none of either if there is no such queue."""
    channel = await link.scratch_channel()
    try:
        found = (await channel.declare_queue(queue, passive=True)).declaration_result
    except ChannelNotFoundEntity:
        return 0, 0
    await channel.close()
    return found.message_count or 0, found.consumer_count or 0


async def move_all(link: Link, source: str, route: Callable[[bytes], str], moved: Callable[[int], object]) -> None:
    """Move messages until the source is empty; ``route`` names the queue for a body.

    Interrupted at any point, every message is in its new queue, in the old
    one, or, for one window of them, in both: what was moved twice is known by
    its id, and comes the second time only after the first.

    Raises:
        BrokerUnavailable: the broker does not confirm in time, or the connection is gone.
    """
    while (await depth(link, source))[0]:
        await _move(link, source, route, moved)


async def _move(link: Link, source: str, route: Callable[[bytes], str], moved: Callable[[int], object]) -> None:
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    whole = Deliveries(arrived.put_nowait, link.abort, properties=AllProperties, whole_max_bytes=math.inf)
    taking, giving = await link.channel(whole), await link.channel(confirms=True)
    try:
        await link.consume(taking, source, _WINDOW)
        exchange = giving.default_exchange
        while window := await _next(arrived):
            copies = [(copy_of(message, link.connection.url.user), route(message.body)) for message in window]
            sent = asyncio.gather(*(exchange.publish(copy, queue) for copy, queue in copies))
            await asked(sent, _CONFIRM_SECONDS)
            link.write(ack_frame(taking.number or 0, window[-1].tag))
            moved(len(window))
    finally:
        await link.close_channel(taking)
        await link.close_channel(giving)


async def _next(arrived: asyncio.Queue[Message]) -> list[Message]:
    """What has arrived; nothing once nothing has for a while."""
    window = []
    with suppress(TimeoutError):
        async with asyncio.timeout(_QUIET_SECONDS):
            window.append(await arrived.get())
    while not arrived.empty():
        window.append(arrived.get_nowait())
    return window


def copy_of(message: Message, user: str | None) -> AmqpMessage:
    """The message as it came, vouched for by who moves it, with its senders before; headers that can be read."""
    told = message.properties
    if not isinstance(told, AllProperties):
        raise TypeError("only what was read with all properties can be copied")
    kept = {name: value for name, value in told.headers.items() if name not in _BROKERS_OWN}
    senders = {SENDERS_HEADER: senders_line(told.user_id, told.headers)}
    return AmqpMessage(
        message.body,
        headers=senders | write_tables({**kept, **senders}, TABLE_MAX_BYTES),
        content_type=_short(told.content_type),
        content_encoding=_short(told.content_encoding),
        delivery_mode=DeliveryMode.PERSISTENT,
        correlation_id=_short(told.correlation_id),
        reply_to=_short(told.reply_to),
        expiration=_seconds(told.expiration),
        message_id=_short(told.message_id),
        timestamp=_moment(told.timestamp),
        type=_short(told.type),
        app_id=_short(told.app_id),
        user_id=user,
    )


def _short(text: str | None) -> str | None:
    """A property that may have grown where what is no UTF-8 was replaced."""
    return None if text is None else text.encode()[:_SHORT_MAX].decode(errors="ignore")


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds is not None and milliseconds.isdecimal() else None


def _moment(seconds: int | None) -> datetime | None:
    """The moment, if a calendar has it."""
    with suppress(ValueError, OverflowError, OSError):
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return None
