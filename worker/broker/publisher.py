"""Publishing outcomes: many in one write, confirmed in one wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.broker.tap import Confirms
from worker.broker.wire import publish_frames
from worker.engine.ports import BrokerUnavailable, Outgoing

if TYPE_CHECKING:
    from worker.broker.session import Link, Session

logger = logging.getLogger(__name__)

WINDOW: Final = 512
OWN_PREFIX: Final = "nodeledger."


class NotConfirmed(BrokerUnavailable):
    """Some messages were not confirmed; ``messages`` are those, in order."""

    def __init__(self, detail: str, messages: Sequence[Outgoing]) -> None:
        super().__init__(detail)
        self.messages = tuple(messages)


@dataclass(slots=True)
class PublisherCounts:
    """What has passed, since the start of the process."""

    published: int = 0
    confirmed: int = 0
    refused: int = 0
    failed: int = 0


class _Batch:
    """Messages written together; ``done`` when the broker has answered for each."""

    __slots__ = ("done", "first", "left", "messages", "nacked")

    def __init__(self, messages: Sequence[Outgoing], first: int, done: asyncio.Future[None]) -> None:
        self.messages = messages
        self.first = first
        self.left = len(messages)
        self.nacked: list[Outgoing] = []
        self.done = done

    def answer(self, number: int, *, taken: bool) -> None:
        if not taken:
            self.nacked.append(self.messages[number - self.first])
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class _ConfirmChannel:
    """The publishing channel of one link: numbers what it sends and finds the batch a confirm belongs to."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.number = 0
        self.lost = False
        self._sent = 0
        self._open: dict[int, _Batch] = {}
        self._room = asyncio.Event()
        self._room.set()

    async def open(self) -> None:
        """Open the channel and number from one."""
        self._channel = await self.link.channel(Confirms(self._on_confirm), confirms=True)
        self.number = self._channel.number or 0

    @property
    def under_way(self) -> int:
        """How many messages the broker has not answered for."""
        return len(self._open)

    async def room(self) -> int:
        """How many more messages may be under way; waits until it is at least one."""
        while not self.lost and len(self._open) >= WINDOW:
            self._room.clear()
            await self._room.wait()
        return WINDOW - len(self._open)

    def send(self, messages: Sequence[Outgoing]) -> _Batch:
        """Write messages in one go, without waiting."""
        batch = _Batch(messages, self._sent + 1, asyncio.get_running_loop().create_future())
        frames = [publish_frames(self.number, message, self.link.frame_max) for message in messages]
        if self.lost or not self.link.write(b"".join(frames)):
            batch.done.set_exception(BrokerUnavailable("the connection to the broker is gone"))
            batch.done.exception()
            return batch
        for number in range(batch.first, batch.first + len(messages)):
            self._open[number] = batch
        self._sent += len(messages)
        return batch

    def lose(self) -> None:
        """The link is gone: nobody will answer for what is under way."""
        self.lost = True
        for batch in set(self._open.values()):
            if not batch.done.done():
                batch.done.set_exception(BrokerUnavailable("the connection was lost before the broker confirmed"))
                batch.done.exception()
        self._open.clear()
        self._room.set()

    def _on_confirm(self, number: int, multiple: bool, taken: bool) -> None:  # noqa: FBT001 - as it came off the wire
        under_way = self._open
        if multiple:
            while under_way and (first := next(iter(under_way))) <= number:
                under_way.pop(first).answer(first, taken=taken)
        elif number in under_way:
            under_way.pop(number).answer(number, taken=taken)
        self._room.set()


class Publisher:
    """Publishes over a session's link, with confirms.

    Args:
        session: whose link to use; its owner calls :meth:`attach` and :meth:`detach`.
        confirm_seconds: how long to wait for the connection, for room, and for the confirms of a call altogether.
    """

    def __init__(self, session: Session, confirm_seconds: float = 30.0) -> None:
        self.counts = PublisherCounts()
        self._session = session
        self._confirm_seconds = confirm_seconds
        self._channel: _ConfirmChannel | None = None

    @property
    def under_way(self) -> int:
        """How many messages the broker has not answered for."""
        return self._channel.under_way if self._channel is not None else 0

    async def attach(self, link: Link) -> None:
        """Publish over a new link from now on."""
        channel = _ConfirmChannel(link)
        await channel.open()
        self._channel = channel

    def detach(self, link: Link) -> None:
        """The link is gone; whoever waits for its confirms is told."""
        if self._channel is not None and self._channel.link is link:
            self._channel.lose()
            self._channel = None

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish in order and wait until the broker has confirmed all.

        A message that no queue wants is confirmed, and that is no error. A
        reply to one of the product's own queues is dropped and counted: a
        producer could otherwise make the worker write commands to itself.

        Raises:
            NotConfirmed: the broker is away, blocks publishers, refused some
                or did not answer in time. What was not confirmed may have
                arrived all the same; publish it again with the same ids.
        """
        wanted = [message for message in messages if not _is_own_queue(message)]
        self._refuse(len(messages) - len(wanted))
        batches: list[_Batch] = []
        problem = "the broker refused messages"
        try:
            async with asyncio.timeout(self._confirm_seconds):
                await self._send(wanted, batches)
                for batch in batches:
                    await batch.done
        except TimeoutError:
            problem = self._why_late()
        except BrokerUnavailable as error:
            problem = str(error)
        self._conclude(wanted, batches, problem)

    async def _send(self, messages: Sequence[Outgoing], batches: list[_Batch]) -> None:
        at = 0
        while at < len(messages):
            link = await self._session.ready(self._confirm_seconds)
            await link.tap.unblocked.wait()
            channel = self._channel
            if channel is None or channel.link is not link:
                detail = "the connection was lost"
                raise BrokerUnavailable(detail)
            room = await channel.room()
            batches.append(channel.send(messages[at : at + room]))
            at += room
            await link.drain()

    def _conclude(self, messages: Sequence[Outgoing], batches: Sequence[_Batch], problem: str) -> None:
        missing: list[Outgoing] = []
        sent = 0
        for batch in batches:
            sent += len(batch.messages)
            answered = batch.done.done() and not batch.done.cancelled() and batch.done.exception() is None
            missing += batch.nacked if answered else batch.messages
        missing += messages[sent:]
        self.counts.published += sent
        self.counts.failed += len(missing)
        self.counts.confirmed += len(messages) - len(missing)
        if missing:
            raise NotConfirmed(f"{len(missing)} of {len(messages)} not confirmed: {problem}", missing)

    def _why_late(self) -> str:
        link = self._session.link
        if link is not None and link.tap.blocked is not None:
            return f"the broker blocks publishers: {link.tap.blocked}"
        return f"no answer within {self._confirm_seconds:g} s"

    def _refuse(self, count: int) -> None:
        if count:
            self.counts.refused += count
            logger.warning("dropped replies addressed to the product's own queues", extra={"replies": count})


def _is_own_queue(message: Outgoing) -> bool:
    return not message.exchange and message.routing_key.startswith(OWN_PREFIX)
