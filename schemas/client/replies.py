"""The queue to which workers send a copy of the answers to this client's commands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from schemas.client.link import CLOSE_SECONDS, Link, asked
from schemas.errors import BrokerAwayError, UnroutableError

EXPIRES_MILLISECONDS: Final = 30 * 60 * 1000
"""How long the queue outlives its client: a client that is away for longer gets its answers by sending again."""


class Replies:
    """A queue that the broker names, and that outlives a connection: what was answered meanwhile is in it.

    What was on its way to a connection that broke is lost; the command that is
    sent again is answered again.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._under: Any = None
        self._tag = ""

    async def listen(self, link: Link, take: Callable[[bytes], None]) -> None:
        """Consume the queue, or a new one where it is gone.

        Raises:
            UnroutableError: this user may have no queue of its own.
        """
        if self.name is not None and not await self._is_there(link):
            self.name = None
        channel = await link.channel()
        if self.name is None:
            try:
                made = await asked(
                    channel.declare_queue(durable=True, arguments={"x-expires": EXPIRES_MILLISECONDS}),
                )
            except ChannelAccessRefused as error:
                text = "this broker user may not have a queue for its answers: see deploy/broker-permissions"
                raise UnroutableError(f"{text} ({error})") from None
            self.name = made.name
        under: Any = await asked(channel.get_underlay_channel())
        self._under = under

        async def taken(message: Any) -> None:
            take(message.body)

        consuming = await asked(under.basic_consume(self.name, taken, no_ack=True))
        self._tag = consuming.consumer_tag

    async def forget(self, link: Link) -> None:
        """Delete the queue: nobody will read it any more. One that cannot be deleted goes by itself."""
        if self.name is not None:
            with suppress(Exception):  # the library's errors have no common base, and it expires
                # First, since the library warns of a consumer that the broker cancels.
                await asked(self._under.basic_cancel(self._tag), CLOSE_SECONDS)
                channel = await link.scratch_channel()
                await asked(channel.queue_delete(self.name), CLOSE_SECONDS)

    async def check(self, link: Link) -> None:
        """Drop the link if the queue is gone, or gives its messages to nobody: the next link has a new one."""
        try:
            if not await self._is_there(link, consumed=True):
                link.drop(BrokerAwayError("the queue for the answers is gone"))
        except BrokerAwayError as error:
            link.drop(error)

    async def _is_there(self, link: Link, *, consumed: bool = False) -> bool:
        channel = await link.scratch_channel()
        try:
            found = await asked(channel.declare_queue(self.name, passive=True))
        except (ChannelNotFoundEntity, ChannelPreconditionFailed, ChannelAccessRefused):
            return False
        await asked(channel.close())
        return not consumed or bool(found.declaration_result.consumer_count)
