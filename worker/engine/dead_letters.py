"""What cannot be applied goes to the dead letters, and only then is done with.

A command that could be parsed is recorded as dead as well: once its letter is
safe it goes down the path again, to be written under its id.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

from worker.engine.intake import Item, about
from worker.engine.letters import letter_of, letter_of_refused
from worker.engine.ports import BrokerUnavailable
from worker.engine.send_queue import SendQueue
from worker.telemetry.logs import get_logger, log_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from worker.engine.intake import Refused
    from worker.engine.lanes import Lanes
    from worker.engine.ports import Broker, DeadLetter, Delivery
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

_AT_ONCE: Final = 64

_Waiting: TypeAlias = "tuple[DeadLetter, Refused | Item]"


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
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._answer = answer or (lambda _letter, delivery: broker.settle([delivery]))
        self._broker = broker
        self._lanes = lanes
        self._metrics = metrics
        self._queue: SendQueue[_Waiting] = SendQueue("dead letters", self._send, _AT_ONCE, pause)

    def refuse(self, refused: Refused) -> None:
        """Dead-letter a delivery that intake refused."""
        self._queue.add((letter_of_refused(refused), refused))

    def dead_letter(self, item: Item, reason: str, detail: str) -> None:
        """Dead-letter a command that was put away, and then record it as dead."""
        letter = letter_of(item, reason, detail)
        if letter is not None:
            self._queue.add((letter, item))
            return
        with about(item.command):
            _log.error("a command of the worker's own fails", detail=detail)

    @property
    def waiting(self) -> list[DeadLetter]:
        """Letters that are not safe yet."""
        return [letter for letter, _ in self._queue.waiting]

    async def run(self) -> None:
        """Dead-letter, forever."""
        await self._queue.run()

    async def _send(self, some: Sequence[_Waiting]) -> tuple[Sequence[_Waiting], str | None]:
        try:
            await self._broker.dead_letter([letter for letter, _ in some])
        except BrokerUnavailable as trouble:
            return some, str(trouble)
        for letter, origin in some:
            self._done(letter, origin)
        return [], None

    def _done(self, letter: DeadLetter, origin: Refused | Item) -> None:
        """The letter is safe: what is left is to record the command as dead, or to let the delivery go."""
        self._metrics.dead.labels(letter.reason).inc()
        with log_context(command=letter.command, kind=letter.kind, node=letter.node):
            _log.warning("dead letter", reason=letter.reason, detail=letter.detail)
        item = origin if isinstance(origin, Item) else origin.item
        if item is None or letter.reason == "id_reuse":
            if origin.delivery is not None:
                self._answer(letter, origin.delivery)
            return
        item.dead_lettered = (letter.reason, letter.detail)
        self._lanes.put_first(item.command.node, [item])
