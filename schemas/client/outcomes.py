"""Reading outcomes from a durable queue, each acknowledged by the reader's own hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed
from pydantic import ValidationError

from schemas.client.link import CLOSE_SECONDS, Link, asked
from schemas.errors import UnreadableAnswerError, UnroutableError
from schemas.outcomes import Outcome, Status
from schemas.routing import OUTCOME_EXCHANGE, outcome_key

PREFETCH: Final = 256
"""How many may be read and unacknowledged; more than that are not given."""


def routing_keys(kinds: Sequence[str], statuses: Sequence[Status], nodes: Sequence[str]) -> list[str]:
    """The patterns that choose these outcomes; what is not named may be any."""
    if not (kinds or statuses or nodes):
        return ["#"]
    several: list[Sequence[str]] = [kinds or ["#"], statuses or ["*"], nodes or ["*"]]
    return [outcome_key(*parts) for parts in product(*several)]


@dataclass(frozen=True, slots=True)
class Read:
    """An outcome as it was read; it comes again, after the connection or the program ends, until acknowledged."""

    body: bytes
    _channel: Any
    _tag: int

    @property
    def outcome(self) -> Outcome:
        """What was read.

        Raises:
            UnreadableAnswerError: the worker is of a later release.
        """
        try:
            return Outcome.model_validate_json(self.body)
        except ValidationError:
            raise UnreadableAnswerError(self.body) from None

    async def acknowledge(self) -> None:
        """It is done with. Where its connection is gone it comes again all the same."""
        with suppress(Exception):  # the library's errors have no common base, and all mean that
            await self._channel.basic_ack(self._tag)


class Outcomes:
    """The stream of a queue: iterate it; a lost connection only pauses it."""

    def __init__(self, queue: str, keys: Sequence[str], prefetch: int) -> None:
        self._queue = queue
        self._keys = keys
        self._prefetch = prefetch
        self._read: asyncio.Queue[Read] = asyncio.Queue()
        self._channel: AbstractChannel | None = None
        self._link: Link | None = None

    def __aiter__(self) -> Outcomes:
        return self

    async def __anext__(self) -> Read:
        return await self._read.get()

    async def attach(self, link: Link) -> None:
        """Consume the queue on a new link."""
        await self._declare(link)
        channel = await link.channel()
        await asked(channel.set_qos(self._prefetch))
        under: Any = await asked(channel.get_underlay_channel())

        async def taken(message: Any) -> None:
            self._read.put_nowait(Read(message.body, under, message.delivery_tag))

        await asked(under.basic_consume(self._queue, taken))
        self._channel, self._link = channel, link

    def detach(self, link: Link) -> None:
        """The link is gone: what was given and not read comes again on the next."""
        if self._link is link:
            while not self._read.empty():
                self._read.get_nowait()
            self._channel = self._link = None

    async def close(self) -> None:
        """Read no more: what is unacknowledged goes back."""
        channel, link = self._channel, self._link
        if channel is not None and link is not None:
            channel.close_callbacks.discard(link.on_closed)
            with suppress(Exception):
                await asked(channel.close(), CLOSE_SECONDS)

    async def _declare(self, link: Link) -> None:
        """Make the queue and bind it; a user who may not relies on who could."""
        try:
            channel = await link.scratch_channel()
            arguments: Any = {"x-queue-type": "quorum"}
            queue = await asked(channel.declare_queue(self._queue, durable=True, arguments=arguments))
            for key in self._keys:
                await asked(queue.bind(OUTCOME_EXCHANGE, key))
            await asked(channel.close())
        except (ChannelAccessRefused, ChannelPreconditionFailed) as error:
            await self._insist(link, error)

    async def _insist(self, link: Link, error: Exception) -> None:
        try:
            channel = await link.scratch_channel()
            await asked(channel.declare_queue(self._queue, passive=True))
            await asked(channel.close())
        except (ChannelAccessRefused, ChannelNotFoundEntity):
            raise UnroutableError(f"no queue {self._queue}, and this user may not make it ({error})") from None
