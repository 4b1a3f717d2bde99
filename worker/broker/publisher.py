"""Publishing outcomes: many in one write, confirmed in one wait."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.broker.tap import Confirms
from worker.broker.wire import publish_frames
from worker.engine.ports import BrokerUnavailable, NotConfirmed, Outgoing
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from worker.broker.link import Link
    from worker.broker.session import Session

_log = get_logger(__name__)

WINDOW: Final = 512
OWN_PREFIX: Final = "nodeledger."
PASSED_OVER_SECONDS: Final = 2.0
"""A quorum queue that elects a leader is slower than others for about as long; what comes twice is known by its id."""

_TOO_LARGE: Final = re.compile(
    r"message size \d+ is larger than (?:configured )?max size (\d+)|content.too.large", re.IGNORECASE
)
"""What a broker says as it closes a channel over a message's size, in all versions; its limit in bytes if it tells."""


@dataclass(slots=True)
class PublisherCounts:
    """What has passed, since the start of the process."""

    published: int = 0
    confirmed: int = 0
    refused: int = 0
    failed: int = 0


class _Batch:
    """Messages written together; ``done`` when the broker has answered for each, or never will.

    ``refused`` are those it did not take, ``unanswered`` those that it may or
    may not have taken, ``too_large`` those over which it closed the channel.
    """

    __slots__ = ("channel", "done", "first", "left", "messages", "refused", "too_large", "unanswered")

    def __init__(
        self, channel: _ConfirmChannel, messages: Sequence[Outgoing], first: int, done: asyncio.Future[None]
    ) -> None:
        self.channel = channel
        self.messages = messages
        self.first = first
        self.left = len(messages)
        self.refused: list[Outgoing] = []
        self.too_large: list[Outgoing] = []
        self.unanswered: list[Outgoing] = []
        self.done = done

    def message(self, number: int) -> Outgoing:
        return self.messages[number - self.first]

    def answer(self, number: int, *, taken: bool) -> None:
        if not taken:
            self.refused.append(self.message(number))
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, detail: str) -> None:
        """Nobody will answer for what is left."""
        if not self.done.done():
            self.done.set_exception(BrokerUnavailable(detail))
            self.done.exception()  # whoever waited may have left


class _ConfirmChannel:
    """The publishing channel of one link: numbers what it sends and finds the batch a confirm belongs to."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.number = 0
        self.lost = False
        self._sent = 0
        self._answered = 0
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
        batch = _Batch(self, messages, self._sent + 1, asyncio.get_running_loop().create_future())
        frames = [publish_frames(self.number, message, self.link.frame_max) for message in messages]
        if self.lost or not self.link.write(b"".join(frames)):
            batch.unanswered += messages
            batch.fail("the connection to the broker is gone")
            return batch
        for number in range(batch.first, batch.first + len(messages)):
            self._open[number] = batch
        self._sent += len(messages)
        return batch

    def lose(self) -> int | None:
        """The link is gone: nobody will answer for what is under way.

        Where it is gone over a message's size, returns the size in bytes that the
        broker takes. One that does not tell it has met the largest of those under way.
        """
        self.lost = True
        limit = self._limit()
        for number, batch in self._open.items():
            message = batch.message(number)
            large = limit is not None and len(message.body) > limit
            (batch.too_large if large else batch.unanswered).append(message)
        for batch in set(self._open.values()):
            batch.fail("the connection was lost before the broker confirmed")
        self._open.clear()
        self._room.set()
        return limit

    def _limit(self) -> int | None:
        told = _TOO_LARGE.search(self.link.failure)
        if told is None or self.link.failed_channel not in {None, self._channel}:
            return None
        largest = max((len(batch.message(number).body) for number, batch in self._open.items()), default=0)
        return int(told[1]) if told[1] else max(0, largest - 1)

    def pass_over(self, batch: _Batch) -> None:
        """Wait no longer for what is left of a batch, if the broker has answered for something that was sent later."""
        left = [n for n in range(batch.first, batch.first + len(batch.messages)) if n in self._open]
        if left and left[-1] < self._answered:
            for number in left:
                self._open.pop(number).answer(number, taken=False)
            self._room.set()

    def give_up(self, batch: _Batch, *, late: bool) -> None:
        """Wait no longer for a batch: what the broker has not answered for may or may not have arrived.

        Where the answer is ``late``, though what was sent later has been answered
        for, a message is held up by its own queue alone: that is as good as refused.
        """
        for number in range(batch.first, batch.first + len(batch.messages)):
            if self._open.pop(number, None) is not None:
                held_up = late and number < self._answered
                (batch.refused if held_up else batch.unanswered).append(batch.message(number))
        batch.fail("nobody waits for the answer any more")
        self._room.set()

    def _on_confirm(self, number: int, multiple: bool, taken: bool) -> None:  # noqa: FBT001 - as it came off the wire
        under_way = self._open
        self._answered = max(self._answered, number)
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
        self._largest: int | None = None

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
            limit = self._channel.lose()
            self._channel = None
            if limit is not None:
                self._largest = limit
                _log.error("the broker takes no larger messages", bytes=limit)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish in order and wait until the broker has confirmed all.

        A message that no queue wants is confirmed, and that is no error. A
        reply to one of the product's own queues is dropped and counted: a
        producer could otherwise make the worker write commands to itself.

        Raises:
            NotConfirmed: the broker is away, blocks publishers, refused some
                or did not answer in time; it tells which. A message over whose
                size the broker closed the channel once, and any that is larger
                than the broker said it takes, is not sent to it again.
        """
        wanted = [message for message in messages if not _is_own_queue(message)]
        self._refuse(len(messages) - len(wanted))
        failure = NotConfirmed(len(wanted))
        if self._largest is not None:
            failure.too_large += [message for message in wanted if len(message.body) > self._largest]
            wanted = [message for message in wanted if len(message.body) <= self._largest]
        batches: list[_Batch] = []
        late = False
        try:
            async with asyncio.timeout(self._confirm_seconds):
                await self._send(wanted, batches)
                for batch in batches:
                    await _concluded(batch)
        except TimeoutError:
            failure.detail = self._why_late()
            late = True
        except BrokerUnavailable as error:
            failure.detail = str(error)
        for batch in batches:
            batch.channel.give_up(batch, late=late)
        self._conclude(wanted, batches, failure)

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

    def _conclude(self, messages: Sequence[Outgoing], batches: Sequence[_Batch], failure: NotConfirmed) -> None:
        sent = 0
        for batch in batches:
            sent += len(batch.messages)
            failure.too_large += batch.too_large
            failure.refused += batch.refused
            failure.unanswered += batch.unanswered
        failure.unanswered += messages[sent:]
        missing = len(failure.messages)
        self.counts.published += sent
        self.counts.failed += missing
        self.counts.confirmed += failure.of - missing
        if missing:
            raise failure

    def _why_late(self) -> str:
        link = self._session.link
        if link is not None and link.tap.blocked is not None:
            return f"the broker blocks publishers: {link.tap.blocked}"
        return f"no answer within {self._confirm_seconds:g} s"

    def _refuse(self, count: int) -> None:
        if count:
            self.counts.refused += count
            _log.warning("dropped replies addressed to the product's own queues", replies=count)


async def _concluded(batch: _Batch) -> None:
    """Wait until the broker has answered for a batch; what its own queue alone holds up counts as refused."""
    while not batch.done.done():
        await asyncio.wait((batch.done,), timeout=PASSED_OVER_SECONDS)
        batch.channel.pass_over(batch)
    await batch.done


def _is_own_queue(message: Outgoing) -> bool:
    return not message.exchange and message.routing_key.startswith(OWN_PREFIX)
