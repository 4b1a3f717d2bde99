"""The last step: outcomes are published with confirms, and batches left by a crash are swept up.

The outbox has one row for each batch, not for each outcome. It is deleted with
the write of a later batch, so that publishing costs no transaction of its own;
an idle worker deletes what is left after a moment.

An answer that nobody takes delays nobody: what the broker refuses leaves its
batch and is tried again alone, a bounded number of times. Until then the
batch's row names what is still missing, for the worker that comes after.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from worker.engine.envelope import Envelope
from worker.engine.intake import reply_of
from worker.engine.outcomes import Rendered, dead_answer, messages
from worker.engine.ports import BrokerUnavailable, LedgerUnavailable
from worker.engine.retrier import TOO_LARGE, Retrier, attempt
from worker.engine.retries import LONGEST_SECONDS, Refused, Retries
from worker.engine.send_queue import SendQueue
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from worker.engine.intake import Item
    from worker.engine.ports import Broker, DeadLetter, Delivery, Ledger, NotConfirmed, Outgoing, Unpublished
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

_AT_ONCE: Final = 16
_KEPT_BATCHES: Final = 256
_IDLE_SECONDS: Final = 0.5
_SWEEP_BATCHES: Final = 16


@dataclass(slots=True, eq=False)
class _Batch:
    """The messages of one commit that are not published yet, and what follows once they are.

    ``outbox`` is its row, if it has one; ``received`` when its commands came;
    ``unsettled`` what may only be acknowledged then; ``refused`` those of its
    messages that wait for another attempt.
    """

    outbox: UUID | None
    outgoing: list[Outgoing]
    received: list[float] = field(default_factory=list)
    unsettled: list[Delivery] = field(default_factory=list)
    refused: list[Refused[_Batch]] = field(default_factory=list)

    def missing(self) -> list[UUID]:
        """The commands whose outcomes the broker refused."""
        return list(dict.fromkeys(UUID(refused.message.message_id) for refused in self.refused))


class Outbox:
    """Publishes the outcomes of committed batches in their order.

    What is not published when the worker dies, or when the broker is away for
    so long that more than a bounded number of batches waits, is left to the
    sweeper of any worker. The answer to a duplicate, or to what the rules refuse, has
    no row: its delivery is acknowledged once the broker has answered for it, and
    stays the broker's until then.
    """

    def __init__(
        self,
        broker: Broker,
        ledger: Ledger,
        metrics: Metrics,
        sweep_seconds: float,
        retries: Retries[_Batch] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._pause = pause
        self._queue: SendQueue[_Batch] = SendQueue("outcomes", self._send, _AT_ONCE, pause)
        self._retrier = Retrier(broker, metrics, self._end, retries)
        self._narrowed: dict[UUID, list[UUID]] = {}
        self._published: list[UUID] = []
        self._jitter = random.Random()  # noqa: S311 - jitter, not a secret

    @property
    def unpublished(self) -> int:
        """Messages that wait for the broker's confirm."""
        return sum(len(batch.outgoing) for batch in self._queue.waiting)

    @property
    def refused(self) -> int:
        """Messages that the broker refused and that are to be tried again."""
        return len(self._retrier.waiting)

    def add(
        self, outbox: UUID | None, outcomes: Sequence[tuple[Item, Rendered]], unrecorded: Collection[Item] = ()
    ) -> None:
        """Publish the outcomes of a committed batch; ``outbox`` is the batch's row, if it has one.

        Those of ``unrecorded`` items are not in that row: they
        are never left to the sweeper, and their deliveries are settled here.
        """
        if len(self._queue.waiting) >= _KEPT_BATCHES and outbox is not None:
            kept = {id(item) for item in unrecorded}
            outbox, outcomes = None, [(item, rendered) for item, rendered in outcomes if id(item) in kept]
        batch = _Batch(outbox, [])
        for item, rendered in outcomes:
            batch.outgoing.extend(messages(rendered, str(item.command.id), item.reply))
            if item.delivery is not None:
                batch.received.append(item.delivery.received_at)
        batch.unsettled += [item.delivery for item in unrecorded if item.delivery is not None]
        if batch.outgoing:
            self._queue.add(batch)

    def answer_dead(self, letter: DeadLetter, delivery: Delivery | None = None) -> None:
        """Tell the sender of a message that has no outcome under its id, and settle its delivery, if any, then."""
        reply = Envelope.of_letter(letter.headers).reply if delivery is None else reply_of(delivery)
        unsettled = [] if delivery is None else [delivery]
        batch = _Batch(None, dead_answer(letter, reply, datetime.now(UTC)), unsettled=unsettled)
        if batch.outgoing:
            self._queue.add(batch)
        else:
            self._broker.settle(batch.unsettled)

    def take_published(self) -> list[UUID]:
        """The batches published since this was last asked, to be noted with the next commit."""
        published, self._published = self._published, []
        return published

    def give_back(self, published: list[UUID]) -> None:
        """The commit that was to note these did not happen."""
        self._published += published

    async def publish(self) -> None:
        """Publish what is added, forever, several batches at a time."""
        await self._queue.run()

    async def _send(self, batches: Sequence[_Batch]) -> tuple[list[_Batch], str | None]:
        """Publish batches together; gives back those with messages that the broker did not answer for, and why not."""
        failure = await attempt(self._broker, [message for batch in batches for message in batch.outgoing])
        for batch in batches:
            outgoing, batch.outgoing = batch.outgoing, []
            if failure is not None:
                self._sort_out(batch, outgoing, failure)
            if not batch.outgoing:
                self._finish(batch)
        left = [batch for batch in batches if batch.outgoing]
        return left, str(failure) if failure is not None and failure.unanswered else None

    def _sort_out(self, batch: _Batch, outgoing: Sequence[Outgoing], failure: NotConfirmed) -> None:
        unanswered, refused, too_large = failure.by_identity()
        for message in outgoing:
            if id(message) in unanswered:
                batch.outgoing.append(message)
            elif id(message) in too_large:
                self._retrier.give_up(message, TOO_LARGE)
            elif id(message) in refused and (aside := self._retrier.set_aside(message, batch)) is not None:
                batch.refused.append(aside)

    def _finish(self, batch: _Batch) -> None:
        """The broker has answered for all of a batch; what it refused is all that is left of it."""
        if batch.unsettled:
            self._broker.settle(batch.unsettled)
            batch.unsettled = []
        now = asyncio.get_running_loop().time()
        self._metrics.answered([now - at for at in batch.received])
        if batch.outbox is None:
            return
        if batch.refused:
            self._narrowed[batch.outbox] = batch.missing()
        else:
            self._published.append(batch.outbox)

    def _end(self, aside: Refused[_Batch]) -> None:
        """A refused message is published or given up; with the last one its batch is done."""
        batch = aside.origin
        batch.refused.remove(aside)
        if batch.outbox is not None and not batch.refused and not batch.outgoing:
            self._narrowed.pop(batch.outbox, None)
            self._published.append(batch.outbox)

    async def retry(self) -> None:
        """Try again, forever and each alone, what the broker refused."""
        await self._retrier.run()

    async def flushed(self) -> None:
        """Wait until everything added is published, and note it; what was refused is left to other workers."""
        await self._queue.flushed()
        for aside in self._retrier.waiting:
            if aside.origin.outbox is not None:
                self._narrowed[aside.origin.outbox] = aside.origin.missing()
        await self._write_down(ours_for=0.0)

    async def tidy(self) -> None:
        """Note what is published while no further commit comes to carry it, forever."""
        while True:
            await self._pause(_IDLE_SECONDS)
            await self._write_down()

    async def _write_down(self, ours_for: float = LONGEST_SECONDS) -> None:
        narrowed, self._narrowed = self._narrowed, {}
        published = self.take_published()
        try:
            if narrowed:
                await self._ledger.narrow_unpublished(narrowed, ours_for)
            if published:
                await self._ledger.published(published)
        except LedgerUnavailable:
            self._narrowed = {**narrowed, **self._narrowed}
            self.give_back(published)

    async def sweep(self) -> None:
        """Publish what a crash or a long absence of the broker left unpublished, forever."""
        while True:
            await self._pause(self._jitter.uniform(0.5, 1.5) * self._sweep_seconds)
            try:
                while await self.sweep_some():
                    pass
            except (BrokerUnavailable, LedgerUnavailable) as trouble:
                _log.info("sweeping the outbox waits", error=str(trouble))

    async def sweep_some(self) -> bool:
        """Publish some batches that are older than the interval; says whether there may be more.

        What this worker has in hand itself is passed over.

        Raises:
            BrokerUnavailable: not all were answered for.
            LedgerUnavailable: the database is away.
        """
        found = await self._ledger.unpublished(self._sweep_seconds, _SWEEP_BATCHES)
        in_hand = self._in_hand()
        batches = [_Batch(left.outbox, _messages(left)) for left in found if left.outbox not in in_hand]
        outgoing = sum(len(batch.outgoing) for batch in batches)
        _, trouble = await self._send(batches)
        for batch in batches:
            if batch.outgoing:
                batch.outbox = None  # its row stays for the next sweep
            outgoing -= len(batch.outgoing) + len(batch.refused)
        self._metrics.outbox_swept.inc(outgoing)
        await self._write_down()
        if trouble is not None:
            raise BrokerUnavailable(trouble)
        return len(found) == _SWEEP_BATCHES

    def _in_hand(self) -> set[UUID | None]:
        waiting = {batch.outbox for batch in self._queue.waiting}
        return waiting | {aside.origin.outbox for aside in self._retrier.waiting} | {*self._published}


def _messages(left: Unpublished) -> list[Outgoing]:
    return [
        message
        for answer in left.outcomes
        for message in messages(
            Rendered(answer.kind, answer.status, answer.node, answer.outcome), str(answer.command), answer.reply
        )
    ]
