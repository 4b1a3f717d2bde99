"""What cannot be applied goes to the dead letters, and only then is done with.

A command that could be parsed is recorded as dead as well: once its letter is
safe it goes down the path again, to be written under its id.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from worker.engine.envelope import Envelope
from worker.engine.intake import Item, reply_of
from worker.engine.ports import BrokerUnavailable, DeadLetter, senders_line
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.engine.intake import Refused
    from worker.engine.lanes import Lanes
    from worker.engine.ports import Broker, Delivery
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

_AT_ONCE: Final = 64
_LONGEST_PAUSE: Final = 5.0


class DeadLetters:
    """Dead-letters what intake refused and what a batch put away.

    ``answer`` tells the sender of a message that has no outcome of its own
    under its id, and settles its delivery; without it, nobody is told.
    """

    def __init__(
        self,
        broker: Broker,
        lanes: Lanes,
        metrics: Metrics,
        answer: Callable[[DeadLetter, Delivery], None] | None = None,
    ) -> None:
        self._answer = answer or (lambda _letter, delivery: broker.settle([delivery]))
        self._broker = broker
        self._lanes = lanes
        self._metrics = metrics
        self._waiting: deque[tuple[DeadLetter, Refused | Item]] = deque()
        self._arrived = asyncio.Event()
        self._jitter = random.Random()  # noqa: S311 - jitter, not a secret

    def refuse(self, refused: Refused) -> None:
        """Dead-letter a delivery that intake refused."""
        delivery = refused.delivery
        envelope = Envelope(senders_line(delivery.user_id, delivery.headers), reply_of(delivery))
        letter = DeadLetter(
            delivery.body,
            refused.reason,
            refused.detail,
            refused.command,
            refused.node,
            refused.kind,
            envelope.on_letter(delivery.headers),
            delivery.whole,
        )
        self._put(letter, refused)

    def dead_letter(self, item: Item, reason: str, detail: str) -> None:
        """Dead-letter a command that was put away, and then record it as dead."""
        command = item.command
        source = item.delivery or item.parked
        if source is None:
            _log.error("a command of the worker's own fails", kind=command.kind, node=command.node, detail=detail)
            return
        before = item.delivery.headers if item.delivery is not None else {}
        headers = Envelope.of_item(item).on_letter(before)
        letter = DeadLetter(source.body, reason, detail, command.id, command.node, command.kind, headers)
        self._put(letter, item)

    def _put(self, letter: DeadLetter, origin: Refused | Item) -> None:
        self._waiting.append((letter, origin))
        self._arrived.set()

    async def run(self) -> None:
        """Dead-letter, forever."""
        pause = 0.1
        while True:
            await self._arrived.wait()
            some = [self._waiting[i] for i in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                await self._broker.dead_letter([letter for letter, _ in some])
            except BrokerUnavailable as trouble:
                _log.warning("dead letters wait for the broker", error=str(trouble), letters=len(self._waiting))
                await asyncio.sleep(self._jitter.uniform(0, pause))
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = 0.1
            for letter, origin in some:
                self._waiting.popleft()
                self._done(letter, origin)
            if not self._waiting:
                self._arrived.clear()

    def _done(self, letter: DeadLetter, origin: Refused | Item) -> None:
        """The letter is safe: what is left is to record the command as dead, or to let the delivery go."""
        self._metrics.dead.labels(letter.reason).inc()
        _log.warning(
            "dead letter", reason=letter.reason, detail=letter.detail, command=str(letter.command), node=letter.node
        )
        item = origin if isinstance(origin, Item) else origin.item
        if item is None or letter.reason == "id_reuse":
            if origin.delivery is not None:
                self._answer(letter, origin.delivery)
            return
        item.dead_lettered = (letter.reason, letter.detail)
        self._lanes.put_first(item.command.node, [item])
