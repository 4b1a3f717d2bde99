"""RabbitMQ as the worker sees it: two connections, one to take and one to give.

They are two because the broker stops reading a connection that publishes when
it runs out of memory or disk, and acknowledgements must not wait behind that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.broker.archiver import Archiver
from worker.broker.consumer import Consumer
from worker.broker.dead_letters import DeadLetterPublisher
from worker.broker.publisher import Publisher
from worker.broker.session import Session
from worker.broker.topology import ensure

if TYPE_CHECKING:
    from worker.broker.link import Link
    from worker.broker.session import BrokerOptions
    from worker.engine.ports import DeadLetter, Delivery, Outgoing

_IN_LINE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class BrokerState:
    """How the broker is doing, for readiness and metrics. ``archive`` says why no dead letters are stored."""

    consuming: bool
    publishing: bool
    blocked: str | None
    last_error: str | None
    generation: int
    active_shards: frozenset[int]
    waiting_shards: frozenset[int]
    unfinished: int
    archive: str | None


class RabbitBroker:
    """The engine's ``Broker`` port, on RabbitMQ.

    Args:
        options: where the broker is.
        shards: how many command queues there are.
        sink: takes each delivery, in order per shard; must not block or raise.
        store: keeps dead letters for good; without it, nothing is taken from the dead-letter queue.
        prefetch: how many unacknowledged deliveries there may be per shard.
        declare: whether to declare exchanges and queues, or only to check them.
        confirm_seconds: how long publishing may take before it counts as failed.
    """

    def __init__(
        self,
        options: BrokerOptions,
        shards: int,
        sink: Callable[[Delivery], None],
        *,
        store: Callable[[Sequence[DeadLetter]], Awaitable[None]] | None = None,
        prefetch: int = 400,
        declare: bool = True,
        confirm_seconds: float = 30.0,
    ) -> None:
        self._shards = shards
        self._declare = declare
        self._giving = Session(options, "publish", on_ready=self._attach_giving, on_lost=self._detach_giving)
        self._taking = Session(options, "consume", on_ready=self._attach_taking, on_lost=self._detach_taking)
        self.publisher = Publisher(self._giving, confirm_seconds)
        self.consumer = Consumer(range(shards), prefetch, sink)
        self.archiver = Archiver(store) if store is not None else None
        self._dead_letter_publisher = DeadLetterPublisher(self._giving, confirm_seconds)

    @property
    def state(self) -> BrokerState:
        """How things are now."""
        giving = self._giving.link
        return BrokerState(
            consuming=self._taking.link is not None and not self.consumer.paused,
            publishing=giving is not None and giving.tap.blocked is None,
            blocked=giving.tap.blocked if giving is not None else None,
            last_error=self._taking.last_error or self._giving.last_error,
            generation=self._taking.generation,
            active_shards=self.consumer.active,
            waiting_shards=self.consumer.waiting,
            unfinished=self.consumer.unfinished,
            archive=self.archiver.trouble if self.archiver is not None else None,
        )

    @property
    def connects(self) -> int:
        """How often a connection was opened; each one beyond the first two follows a loss."""
        return self._giving.generation + self._taking.generation

    def start(self) -> None:
        """Begin connecting; deliveries come as soon as there is a broker, and again after each loss."""
        self._giving.start()
        self._taking.start()

    async def ready(self, timeout: float) -> None:  # noqa: ASYNC109 - the caller's budget, with our own error
        """Wait until both connections are up.

        Raises:
            BrokerUnavailable: they are not within ``timeout`` seconds; the message says why.
        """
        await asyncio.gather(self._giving.ready(timeout), self._taking.ready(timeout))

    async def in_line(self) -> None:
        """Wait until this worker is registered on every shard.

        Raises:
            BrokerUnavailable: it is not within a few seconds.
        """
        await self._taking.ready(_IN_LINE_SECONDS)

    def served(self) -> Iterable[int]:
        """The shards that have delivered something to this registration."""
        return self.consumer.active

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish and wait for every confirm; see :meth:`Publisher.publish`."""
        await self.publisher.publish(messages)

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Put messages safely into the dead letters; see :meth:`DeadLetterPublisher.dead_letter`."""
        await self._dead_letter_publisher.dead_letter(letters)

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Mark deliveries as finished; see :meth:`Consumer.settle`."""
        self.consumer.settle(deliveries)

    async def yield_shards(self, shards: Iterable[int], *, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a budget for draining
        """Hand shards to the next workers in line; see :meth:`Consumer.yield_shard`."""
        await asyncio.gather(*(self.consumer.yield_shard(shard, timeout=timeout) for shard in shards))

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - a budget for draining
        """Take nothing more, wait for what was handed out to be settled, acknowledge it and leave the queues.

        What is unfinished after ``timeout`` seconds goes back to its queue, in order.
        """
        await self.consumer.pause(timeout=timeout)

    async def close(self) -> None:
        """Close both connections."""
        if self.archiver is not None:
            await self.archiver.close()
        await asyncio.gather(self._taking.close(), self._giving.close())

    async def _attach_giving(self, link: Link) -> None:
        await ensure(link, self._shards, declare=self._declare)
        await asyncio.gather(self.publisher.attach(link), self._dead_letter_publisher.attach(link))

    def _detach_giving(self, link: Link) -> None:
        self.publisher.detach(link)

    async def _attach_taking(self, link: Link) -> None:
        await ensure(link, self._shards, declare=self._declare)
        await self.consumer.attach(link)
        if self.archiver is not None:
            self.archiver.attach(link)

    def _detach_taking(self, link: Link) -> None:
        self.consumer.detach(link)
        if self.archiver is not None:
            self.archiver.detach(link)
