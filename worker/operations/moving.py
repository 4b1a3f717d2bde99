"""Moving messages between queues: in order, and each out of the old queue only once it is safe in the new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aio_pika import DeliveryMode, Message
from aiormq.exceptions import ChannelNotFoundEntity

from worker.engine.ports import SENDERS_HEADER, senders_line

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

    from worker.broker.link import Link

_WINDOW: Final = 256
_QUIET_SECONDS: Final = 0.5
_CONFIRM_SECONDS: Final = 30.0
_BROKERS_OWN: Final = ("x-delivery-count", "x-acquired-count")


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
    """
    while (await depth(link, source))[0]:
        channel = await link.connection.channel(publisher_confirms=True, on_return_raises=True)
        try:
            await _move(channel, source, route, moved, link.connection.url.user)
        finally:
            await channel.close()


async def _move(
    channel: AbstractChannel,
    source: str,
    route: Callable[[bytes], str],
    moved: Callable[[int], object],
    user: str | None,
) -> None:
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await channel.set_qos(_WINDOW)
    await (await channel.get_queue(source, ensure=False)).consume(arrived.put)
    exchange = channel.default_exchange
    while window := await _next(arrived):
        async with asyncio.timeout(_CONFIRM_SECONDS):
            await asyncio.gather(*(exchange.publish(_copy(message, user), route(message.body)) for message in window))
        await window[-1].ack(multiple=True)
        moved(len(window))


async def _next(arrived: asyncio.Queue[AbstractIncomingMessage]) -> list[AbstractIncomingMessage]:
    """What has arrived; nothing once nothing has for a while."""
    window = []
    with suppress(TimeoutError):
        window.append(await asyncio.wait_for(arrived.get(), _QUIET_SECONDS))
    while not arrived.empty():
        window.append(arrived.get_nowait())
    return window


def _copy(message: AbstractIncomingMessage, user: str | None) -> Message:
    """The message as it came, vouched for by who moves it, with its senders before."""
    headers: Mapping[str, Any] = message.headers or {}
    kept = {name: value for name, value in headers.items() if name not in _BROKERS_OWN}
    return Message(
        message.body,
        headers={**kept, SENDERS_HEADER: senders_line(message.user_id, headers)},
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        delivery_mode=DeliveryMode.PERSISTENT,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        expiration=message.expiration,
        message_id=message.message_id,
        timestamp=message.timestamp,
        type=message.type,
        app_id=message.app_id,
        user_id=user,
    )
