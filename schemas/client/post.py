"""Publishing commands and taking their answers, over whatever connection there is.

A message is kept until it is confirmed and answered. On every new connection
all that is kept is sent again, in the order in which it was given; its id
makes that harmless, and has workers give the stored outcome once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from aio_pika import DeliveryMode
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq import spec
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed
from pydantic import ValidationError
from pydantic_core import from_json

from schemas.backoff import Backoff
from schemas.client.link import Link, Session, asked
from schemas.client.messages import Answer, Message, Pending
from schemas.client.replies import Replies
from schemas.client.shards import learned
from schemas.errors import BrokerAwayError, NoAnswerError, UnreadableAnswerError, UnroutableError
from schemas.outcomes import Outcome
from schemas.routing import COMMAND_EXCHANGE, DEFAULT_SHARDS, command_key, shard_of
from schemas.stopping import ended

CONFIRM_SECONDS: Final = 30.0
"""How long the broker may take to confirm before a message is sent again: a queue's election takes seconds."""
AGAIN: Final = Backoff(30.0, 600.0, jitter=0.5)
"""When what is confirmed and unanswered is sent again: more and more rarely, as its node may have a long backlog."""
NACKED: Final = Backoff(0.5, 10.0)
_LOOK_SECONDS: Final = 1.0
_END_SECONDS: Final = 5.0


class Post:
    """What is under way over a session.

    Args:
        session: whose link to use.
        shards: of the installation; ``None`` learns them on each connection.
        replies: where answers come; ``None`` where none are awaited.
        user: the broker's user, who vouches for each message.
    """

    def __init__(self, session: Session, shards: int | None, replies: Replies | None, user: str | None) -> None:
        self._session = session
        self._given = shards
        self._shards = shards or DEFAULT_SHARDS
        self._replies = replies
        self._user = user
        self._link: Link | None = None
        self._channel: Any = None
        self._under_way: dict[int, Pending] = {}
        self._awaited: dict[UUID, Pending] = {}
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    def post(
        self,
        message: Message,
        seconds: float,
        *,
        answered: bool = False,
        on_parked: Callable[[Outcome], object] | None = None,
    ) -> Pending:
        """Send a message after all that were posted before it, as soon as there is a connection.

        ``seconds`` is for its confirm, or with ``answered`` for its answer. An id
        can be awaited once at a time: see :meth:`awaited`.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] | None = loop.create_future() if answered else None
        pending = Pending(message, loop.create_future(), answer, on_parked)
        self._count += 1
        number = self._count
        self._under_way[number] = pending
        if answered and message.id is not None:
            self._awaited[message.id] = pending
        pending.timer = loop.call_later(seconds, self._late, pending, seconds)
        pending.over.add_done_callback(lambda _: self._forget(number, pending))
        self._put(pending)
        return pending

    def awaited(self, id_: UUID | None) -> Pending | None:
        """The message of this id whose answer is awaited."""
        return self._awaited.get(id_) if id_ is not None else None

    async def attach(self, link: Link) -> None:
        """Work over a new link from now on: all that is under way is sent again, in its order."""
        if self._given is None:
            self._shards = await learned(link, self._shards)
        if self._replies is not None:
            await self._replies.listen(link, self._take)
        channel = await link.channel(confirms=True)
        self._channel = await asked(channel.get_underlay_channel())
        channel.close_callbacks.add(self._on_closed)
        self._link = link
        for pending in self._under_way.values():
            self._put(pending)
        if self._watch is None:
            self._watch = asyncio.create_task(self._look_after())

    def detach(self, link: Link) -> None:
        """The link is gone."""
        if self._link is link:
            self._link = self._channel = None

    async def close(self) -> None:
        """Nothing more is sent."""
        for pending in list(self._under_way.values()):
            pending.fail(BrokerAwayError("the client was closed"))
        await ended([task for task in (self._watch, *self._tasks) if task is not None], _END_SECONDS)

    def _put(self, pending: Pending) -> None:
        """Send once more, if there is a connection."""
        if self._link is None:
            return
        if pending.task is not None:
            pending.task.cancel()
        pending.sent += 1
        wait = AGAIN.seconds(pending.sent) if pending.confirmed.done() else CONFIRM_SECONDS
        pending.due = asyncio.get_running_loop().time() + wait
        pending.task = asyncio.ensure_future(self._publish(self._link, self._channel, pending))
        self._tasks.add(pending.task)
        pending.task.add_done_callback(self._tasks.discard)

    async def _publish(self, link: Link, channel: Any, pending: Pending) -> None:
        message = pending.message
        key = command_key(shard_of(message.node, self._shards))
        try:
            await channel.basic_publish(
                message.body,
                exchange=COMMAND_EXCHANGE,
                routing_key=key,
                properties=self._properties(pending),
                mandatory=True,
            )
        except PublishError:
            await self._unroutable(link, pending)
        except DeliveryError:
            await asyncio.sleep(NACKED.seconds(pending.sent))
            self._put_again(pending)
        except Exception as error:  # noqa: BLE001 - whatever the library makes of it: this connection is no use
            self._on_closed(channel, error)
            link.drop(error)
        else:
            self._confirm(pending)

    def _confirm(self, pending: Pending) -> None:
        pending.due = asyncio.get_running_loop().time() + AGAIN.seconds(pending.sent)
        if not pending.confirmed.done():
            pending.confirmed.set_result(None)

    def _properties(self, pending: Pending) -> Any:
        message = pending.message
        id_ = None if message.id is None else str(message.id)
        own = pending.answer is not None and self._replies is not None
        return spec.Basic.Properties(
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=id_,
            reply_to=self._replies.name if own and self._replies is not None else message.reply_to,
            correlation_id=id_ if own else message.correlation_id,
            user_id=self._user,
            headers=dict(message.headers) if message.headers else None,
        )

    async def _unroutable(self, link: Link, pending: Pending) -> None:
        """No queue took it: perhaps the installation has another number of shards by now."""
        if not await self._sharded_anew(link, pending):
            pending.fail(UnroutableError("no queue takes the command's shard: run `nodeledger topology check`"))

    async def _sharded_anew(self, link: Link, pending: Pending) -> bool:
        """Send once more if its node is on another shard than was thought."""
        if self._given is not None:
            return False
        before = shard_of(pending.message.node, self._shards)
        try:
            self._shards = await learned(link, self._shards)
        except (BrokerAwayError, UnroutableError) as error:
            link.drop(error)
            return True
        if shard_of(pending.message.node, self._shards) == before:
            return False
        pending.task = None  # who asks may be that task
        self._put(pending)
        return True

    def _put_again(self, pending: Pending) -> None:
        """What the broker refused once, and what is unconfirmed of the same node after it, in order."""
        if pending.over.done():
            return
        for other in list(self._under_way.values()):
            if other is pending or (other.message.node == pending.message.node and not other.confirmed.done()):
                if other is pending:
                    other.task = None  # it is that task which asks
                self._put(other)

    def _take(self, body: bytes) -> None:
        """An answer came: the first final one of a command counts."""
        try:
            outcome = Outcome.model_validate_json(body)
        except ValidationError:
            self._unreadable(body)
            return
        pending = self._awaited.get(outcome.command)
        if pending is None or pending.answer is None or pending.answer.done():
            return
        if outcome.status == "parked":
            pending.say_parked(outcome)
        elif self._given is None and outcome.dead_letter is not None and outcome.dead_letter.reason == "misrouted":
            self._spawn(self._misrouted(pending, Answer(outcome, body)))
        else:
            pending.answer.set_result(Answer(outcome, body))

    def _unreadable(self, body: bytes) -> None:
        with suppress(ValueError, TypeError, KeyError):
            pending = self._awaited.get(UUID(from_json(body)["command"]))
            if pending is not None:
                pending.fail(UnreadableAnswerError(body))

    async def _misrouted(self, pending: Pending, answer: Answer) -> None:
        if self._link is not None and await self._sharded_anew(self._link, pending):
            return
        if pending.answer is not None and not pending.answer.done():
            pending.answer.set_result(answer)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, number: int, pending: Pending) -> None:
        self._under_way.pop(number, None)
        id_ = pending.message.id
        if id_ is not None and self._awaited.get(id_) is pending:
            del self._awaited[id_]
        if pending.timer is not None:
            pending.timer.cancel()
        if not pending.confirmed.done():
            pending.confirmed.cancel()

    def _late(self, pending: Pending, seconds: float) -> None:
        away = "the broker is away" if self._link is None else "the broker did not confirm in time"
        if pending.answer is None:
            pending.fail(BrokerAwayError(f"{away}, after {seconds:g} s: sending the same ids again is safe"))
            return
        why = f"none came within {seconds:g} s" if pending.confirmed.done() else f"{away}, after {seconds:g} s"
        ids = [pending.message.id] if pending.message.id is not None else []
        pending.fail(NoAnswerError(ids, why, [pending.parked] if pending.parked is not None else []))

    def _on_closed(self, _channel: object, error: BaseException | None = None) -> None:
        """The publishing channel is gone; where what was sent is the reason, sending it again would end the next."""
        if isinstance(error, ChannelAccessRefused):
            text = f"this broker user may not publish commands: give it write on {COMMAND_EXCHANGE}"
        elif isinstance(error, ChannelNotFoundEntity):
            text = f"there is no exchange {COMMAND_EXCHANGE}: run `nodeledger topology apply`"
        elif isinstance(error, ChannelPreconditionFailed):
            text = f"the broker refuses what was sent: {error}"
        else:
            return
        for pending in list(self._under_way.values()):
            if not pending.confirmed.done():
                pending.fail(UnroutableError(f"{text} ({error})"))

    async def _look_after(self) -> None:
        """Send again, in order, what was not confirmed or answered for long."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            due = [pending for pending in self._under_way.values() if pending.due <= now]
            if due and self._link is not None and self._replies is not None:
                self._spawn(self._replies.check(self._link))
            for pending in due:
                self._put(pending)
