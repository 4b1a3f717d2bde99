"""Sending commands and awaiting what becomes of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from ssl import SSLContext
from typing import Any, Final, Self, Unpack

from yarl import URL

from schemas.asking import Asking, Ledger, each, judged
from schemas.client.link import Session, addresses
from schemas.client.many import WINDOW, Many
from schemas.client.messages import Answer, Message, Pending
from schemas.client.outcomes import PREFETCH, Outcomes, routing_keys
from schemas.client.post import CONFIRM_SECONDS, Post
from schemas.client.replies import Replies
from schemas.commands import Command
from schemas.errors import NoAnswerError
from schemas.outcomes import Outcome, Status

SECONDS: Final = 60.0
"""How long an answer is awaited unless told otherwise."""
_SHARDS: Final = "NODELEDGER_SHARDS"


class Client(Ledger[Coroutine[Any, Any, Outcome]]):
    """A producer's way in: one connection for all commands under way, kept alive.

    >>> async with Client() as ledger:
    ...     outcome = await ledger.claim("cn-017", instance, project="demo", vcpus=4, memory_mib=8192)

    A command is sent again, with its id, after a lost connection, a missing
    confirm and a missing answer, so that it takes effect once; commands for one
    node are published in the order in which they were given.

    Args:
        url: the broker's address or addresses; by default ``NODELEDGER_AMQP_URL`` (or ``NODELEDGER_AMQP_URL_FILE``).
        shards: of the installation; by default ``NODELEDGER_SHARDS``, or learned from the broker.
        seconds: how long to wait for each answer unless told otherwise.
        raising: a refusal is a :class:`~schemas.errors.RejectedError` unless told otherwise.
        tls: how the broker proves itself where the address is ``amqps``; by default by the system's authorities.
        attempts: how often all addresses are tried before opening fails; ``None`` is without end.
        name: what operators see in the broker's list of connections.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        shards: int | None = None,
        seconds: float = SECONDS,
        raising: bool = False,
        tls: SSLContext | None = None,
        attempts: int | None = 3,
        name: str = "nodeledger client",
    ) -> None:
        urls = addresses(url)
        given = os.environ.get(_SHARDS)
        self._seconds = seconds
        self._raising = raising
        self._attempts = attempts
        self._session = Session(urls, tls, name)
        self._replies = Replies()
        known = shards or (int(given) if given else None)
        self._post = Post(self._session, known, self._replies, URL(urls[0]).user)
        self._session.parts.append(self._post)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerAwayError: the broker cannot be reached, or does not let us in.
            UnroutableError: it has no command queues, or this user may not see them.
        """
        try:
            await self._session.start(self._attempts)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect; who still waits gets a :class:`~schemas.errors.BrokerAwayError`."""
        await self._post.close()
        if self._session.link is not None:
            await self._replies.forget(self._session.link)
        await self._session.close()

    @property
    def losses(self) -> int:
        """How often the connection was lost."""
        return self._session.losses

    async def send(self, command: Command, **how: Unpack[Asking]) -> Outcome:
        """Send a command and wait until it is applied or rejected, or in the dead letters.

        Raises:
            NoAnswerError: nothing final came in time; it may have been applied, and sending it again is safe.
            RejectedError: with ``raising``, it was not applied.
            UnroutableError: the broker does not take it.
            UnreadableAnswerError: the worker is of a later release.
        """
        answer = await self.ask(Message.of(command), how.get("seconds"), how.get("on_parked"))
        return judged(answer.outcome, raising=how.get("raising", self._raising))

    async def ask(
        self, message: Message, seconds: float | None = None, on_parked: Callable[[Outcome], object] | None = None
    ) -> Answer:
        """Send a message as it is, and wait for its answer; raises what :meth:`send` does."""
        while (other := self._post.awaited(message.id)) is not None:
            await asyncio.wait((other.over,))
        limit = self._seconds if seconds is None else seconds
        pending = self._post.post(message, limit, answered=True, on_parked=on_parked)
        return await _answer(pending)

    async def send_many(
        self,
        commands: Iterable[Command] | AsyncIterable[Command],
        *,
        window: int = WINDOW,
        seconds: float | None = None,
        on_parked: Callable[[Outcome], object] | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Send commands and give their outcomes as they come; commands for one node stay in their order.

        Args:
            commands: taken one by one, no faster than there is room in the window.
            window: how many are under way at once; those that are parked do not count.
            seconds: how long to wait for each.
            on_parked: called with each outcome that says that a command waits for its hypervisor.

        Raises:
            NoAnswerError: at the end, where some had no final outcome in time.
            ClientError: one cannot be sent at all.
        """
        late: list[NoAnswerError] = []
        async with (
            aclosing(_messages(commands)) as messages,
            aclosing(self.ask_many(messages, window=window, seconds=seconds, on_parked=on_parked)) as over,
        ):
            async for pending in over:
                try:
                    outcome = (await _answer(pending)).outcome
                except NoAnswerError as error:
                    late.append(error)
                else:
                    yield outcome
        if late:
            ids = [id_ for error in late for id_ in error.commands]
            raise NoAnswerError(ids, late[0].why, [one for error in late for one in error.parked])

    def ask_many(
        self,
        messages: Iterable[Message] | AsyncIterable[Message],
        *,
        window: int = WINDOW,
        seconds: float | None = None,
        on_parked: Callable[[Outcome], object] | None = None,
    ) -> AsyncGenerator[Pending, None]:
        """Send messages as they are, and give each once it is answered or has failed; ``answer`` holds which."""
        limit = self._seconds if seconds is None else seconds
        return Many(self._post, window, limit, answered=True, on_parked=on_parked).run(messages)

    async def publish(self, messages: Iterable[Message] | AsyncIterable[Message], *, window: int = WINDOW) -> int:
        """Send messages without awaiting answers, in order; how many, once the broker has all of them safely.

        Raises:
            BrokerAwayError: it did not confirm one in time; what was sent may be sent again.
            UnroutableError: it does not take one.
        """
        sent = 0
        many = Many(self._post, window, 2 * CONFIRM_SECONDS, answered=False, on_parked=None)
        async with aclosing(many.run(messages)) as over:
            async for pending in over:
                await pending.confirmed
                sent += 1
        return sent

    @asynccontextmanager
    async def outcomes(
        self,
        queue: str,
        *,
        kinds: Sequence[str] = (),
        statuses: Sequence[Status] = (),
        nodes: Sequence[str] = (),
        prefetch: int = PREFETCH,
    ) -> AsyncIterator[Outcomes]:
        """All outcomes, or those of some kinds, statuses and nodes, from a durable queue.

        The queue is made where it is not there, and keeps what comes while nobody
        reads. What is read is given again unless it is acknowledged.

        Raises:
            UnroutableError: the queue is not there and this user may not make it.
        """
        stream = Outcomes(queue, routing_keys(kinds, statuses, nodes), prefetch)
        await self._session.add(stream)
        try:
            yield stream
        finally:
            self._session.parts.remove(stream)
            await stream.close()


async def _messages(commands: Iterable[Command] | AsyncIterable[Command]) -> AsyncGenerator[Message, None]:
    async with aclosing(each(commands)) as given:
        async for command in given:
            yield Message.of(command)


async def _answer(pending: Pending) -> Answer:
    if pending.answer is None:
        raise AssertionError("no answer to this message is awaited")
    return await pending.answer
