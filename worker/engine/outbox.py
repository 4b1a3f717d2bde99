"""The end of the path: outcomes are published with confirms, and batches left by a crash are swept up.

The outbox has one row for each batch, not for each outcome. It is deleted with
the write of a later batch, so that publishing costs no transaction of its own;
an idle worker deletes what is left after a moment.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from worker.engine.outcomes import Rendered, messages
from worker.engine.ports import BrokerUnavailable, LedgerUnavailable
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from worker.engine.intake import Item
    from worker.engine.ports import Broker, Ledger, Outgoing
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

_AT_ONCE: Final = 16
_KEPT_BATCHES: Final = 256
_IDLE_SECONDS: Final = 0.5
_SWEEP_BATCHES: Final = 16
_LONGEST_PAUSE: Final = 5.0


class Outbox:
    """Publishes the outcomes of committed batches in their order.

    What is not published when the worker dies, or when the broker is away for
    so long that more than a bounded number of batches waits, is left to the
    sweeper of any worker.
    """

    def __init__(self, broker: Broker, ledger: Ledger, metrics: Metrics, sweep_seconds: float) -> None:
        self._broker = broker
        self._ledger = ledger
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._waiting: deque[tuple[UUID | None, list[Outgoing], list[float]]] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._published: list[UUID] = []
        self._jitter = random.Random()  # noqa: S311 - jitter, not a secret

    @property
    def unpublished(self) -> int:
        """Messages that wait for the broker's confirm."""
        return sum(len(outgoing) for _, outgoing, _ in self._waiting)

    def add(self, outbox: UUID | None, outcomes: Sequence[tuple[Item, Rendered]]) -> None:
        """Publish the outcomes of a committed batch; ``outbox`` is the batch's row, if it has one."""
        if len(self._waiting) >= _KEPT_BATCHES and outbox is not None:
            return
        outgoing: list[Outgoing] = []
        received: list[float] = []
        for item, rendered in outcomes:
            outgoing.extend(messages(rendered, str(item.command.id), item.reply))
            if item.delivery is not None:
                received.append(item.delivery.received_at)
        if outgoing:
            self._waiting.append((outbox, outgoing, received))
            self._idle.clear()
            self._arrived.set()

    def take_published(self) -> list[UUID]:
        """The batches published since this was last asked, to be noted with the next commit."""
        published, self._published = self._published, []
        return published

    def give_back(self, published: list[UUID]) -> None:
        """The commit that was to note these did not happen."""
        self._published += published

    async def publish(self) -> None:
        """Publish what is added, forever, several batches at a time."""
        pause = 0.1
        while True:
            await self._arrived.wait()
            batches = [self._waiting[i] for i in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                await self._broker.publish([message for _, outgoing, _ in batches for message in outgoing])
            except BrokerUnavailable as trouble:
                _log.warning("outcomes wait for the broker", error=str(trouble), batches=len(self._waiting))
                await asyncio.sleep(self._jitter.uniform(0, pause))
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = 0.1
            self._note(batches)

    def _note(self, batches: Sequence[tuple[UUID | None, list[Outgoing], list[float]]]) -> None:
        now = asyncio.get_running_loop().time()
        for outbox, _, received in batches:
            self._waiting.popleft()
            if outbox is not None:
                self._published.append(outbox)
            self._metrics.answered([now - at for at in received])
        if not self._waiting:
            self._arrived.clear()
            self._idle.set()

    async def flushed(self) -> None:
        """Wait until everything added is published, and note it."""
        await self._idle.wait()
        await self._write_down()

    async def tidy(self) -> None:
        """Note what is published while no further commit comes to carry it, forever."""
        while True:
            await asyncio.sleep(_IDLE_SECONDS)
            await self._write_down()

    async def _write_down(self) -> None:
        published = self.take_published()
        if not published:
            return
        try:
            await self._ledger.published(published)
        except LedgerUnavailable:
            self.give_back(published)

    async def sweep(self) -> None:
        """Publish what a crash or a long absence of the broker left unpublished, forever."""
        while True:
            await asyncio.sleep(self._jitter.uniform(0.5, 1.5) * self._sweep_seconds)
            try:
                while await self._sweep_some():
                    pass
            except (BrokerUnavailable, LedgerUnavailable) as trouble:
                _log.info("sweeping the outbox waits", error=str(trouble))

    async def _sweep_some(self) -> bool:
        """Publish some batches that are older than the interval; says whether there may be more."""
        found = await self._ledger.unpublished(self._sweep_seconds, _SWEEP_BATCHES)
        outgoing = [
            message
            for batch in found
            for answer in batch.outcomes
            for message in messages(
                Rendered(answer.kind, answer.status, answer.node, answer.outcome), str(answer.command), answer.reply
            )
        ]
        await self._broker.publish(outgoing)
        await self._ledger.published([batch.outbox for batch in found])
        self._metrics.outbox_swept.inc(len(outgoing))
        return len(found) == _SWEEP_BATCHES
