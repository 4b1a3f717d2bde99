"""Publishing commands with confirms, and waiting for their outcomes on a queue of one's own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aio_pika import Connection, DeliveryMode, Message
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from pydantic import ValidationError

from schemas import COMMAND_EXCHANGE, Outcome, command_key, shard_of
from worker.engine.ports import Reply
from worker.errors import OperationError, UnreachableError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage

    from worker.operations.producing import Sendable

WINDOW: Final = 512
"""How many messages may be unconfirmed at once."""
_CONFIRM_SECONDS: Final = 30.0


class Sender:
    """Publishes commands to their nodes' shards: persistent, mandatory, confirmed, in order."""

    def __init__(
        self, exchange: AbstractExchange, shards: int, reply_to: str | None = None, user: str | None = None
    ) -> None:
        self._exchange = exchange
        self._user = user
        self._shards = shards
        self._reply_to = reply_to

    @classmethod
    async def open(cls, connection: AbstractConnection, shards: int, reply_to: str | None = None) -> Sender:
        """Open a channel of its own on the connection; the user of its address vouches for every command."""
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        return cls(await channel.get_exchange(COMMAND_EXCHANGE, ensure=False), shards, reply_to, _user_of(connection))

    async def send(self, commands: Sequence[Sendable]) -> None:
        """Publish commands and wait until the broker has them safely.

        Raises:
            OperationError: no queue takes them.
            UnreachableError: the broker refuses them, or did not confirm.
        """
        for start in range(0, len(commands), WINDOW):
            window = commands[start : start + WINDOW]
            results = await asyncio.gather(*map(self._publish, window), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise _cause(result)

    async def _publish(self, command: Sendable) -> None:
        id_ = str(command.id) if command.id else None
        replayed = command.envelope
        reply = replayed.reply if replayed is not None else Reply(self._reply_to, id_ if self._reply_to else None)
        message = Message(
            command.body,
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=id_,
            correlation_id=reply.correlation_id,
            reply_to=reply.to,
            user_id=self._user,
            headers=None if replayed is None else replayed.on_replay(),
        )
        key = command_key(shard_of(command.node, self._shards))
        await self._exchange.publish(message, key, mandatory=True, timeout=_CONFIRM_SECONDS)


@dataclass(slots=True)
class Awaited:
    """The commands whose final outcome has not come yet, and how those that came ended."""

    open: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, ids: Sequence[str]) -> None:
        """Wait for these too; an id that is sent twice is answered once."""
        self.open.update(ids)
        self.done.clear()

    async def wait(self, lost: asyncio.Event, seconds: float) -> None:
        """Wait until every outcome is there, or so many seconds are over.

        Raises:
            UnreachableError: the connection was lost before all came.
        """
        if not self.open:
            return
        waits = [asyncio.ensure_future(event.wait()) for event in (self.done, lost)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.open and lost.is_set():
            text = f"the broker went away before {len(self.open)} outcomes came: the database keeps them"
            raise UnreachableError(f"{text}, and sending the same ids again gives them again")


class OutcomeQueue:
    """An exclusive queue, gone with the connection, to which workers send copies of the outcomes."""

    def __init__(self, awaited: Awaited, show: Callable[[bytes], None], note: Callable[[str], None]) -> None:
        self._awaited = awaited
        self._show = show
        self._note = note
        self._channel: AbstractChannel | None = None

    async def open(self, connection: AbstractConnection) -> str:
        """Declare the queue and listen on it; its name."""
        self._channel = await connection.channel(publisher_confirms=False)
        queue = await self._channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.consume(self._take, no_ack=True)
        return queue.name

    async def _take(self, message: AbstractIncomingMessage) -> None:
        try:
            outcome = Outcome.model_validate_json(message.body)
        except ValidationError:
            self._note("ignored a message that is no outcome")
            return
        self._sort(str(outcome.command), outcome, message.body)

    def _sort(self, id_: str, outcome: Outcome, body: bytes) -> None:
        if id_ not in self._awaited.open:
            return
        self._awaited.counts[outcome.status] += 1
        if outcome.status == "parked":
            why = "; ".join(reason.detail for reason in outcome.reasons) or "its node's hypervisor does not answer"
            self._note(f"{id_} on {outcome.node} is parked: {why}")
            return
        self._awaited.open.discard(id_)
        if outcome.status == "dead":
            why = f" ({outcome.dead_letter.reason})" if outcome.dead_letter is not None else ""
            self._note(f"{id_} on {outcome.node} is in the dead letters{why}: see `nodeledger dead list`")
        else:
            self._show(body)
        if not self._awaited.open:
            self._awaited.done.set()


def _user_of(connection: AbstractConnection) -> str | None:
    return connection.url.user if isinstance(connection, Connection) else None


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, PublishError | ChannelNotFoundEntity):
        return OperationError("no queue takes the command's shard: run `nodeledger topology check`")
    if isinstance(error, ChannelAccessRefused):
        return UnreachableError(f"this broker user may not publish commands: give it write on {COMMAND_EXCHANGE}")
    if isinstance(error, DeliveryError):
        return UnreachableError("the broker refused to take a command: look at its alarms and queue limits")
    if isinstance(error, TimeoutError):
        return UnreachableError(
            f"the broker did not confirm within {_CONFIRM_SECONDS:.0f} s: sending the same ids again is safe"
        )
    return error
