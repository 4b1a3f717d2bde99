"""Sending what the broker refused once more, each message alone, until it is taken or given up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from worker.engine.ports import BrokerUnavailable, NotConfirmed
from worker.engine.retries import Refused, Retries
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.engine.ports import Broker, Outgoing
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

TOO_LARGE: Final = "it is larger than the broker takes"

_TELL_SECONDS: Final = 10.0
"""How often at most a line is logged about one thing: a full queue refuses thousands of messages a second."""

_Origin = TypeVar("_Origin")


async def attempt(broker: Broker, outgoing: Sequence[Outgoing]) -> NotConfirmed | None:
    """Publish, and give back what was not confirmed, if anything; whatever is not known to be refused is unanswered."""
    try:
        await broker.publish(outgoing)
    except NotConfirmed as failure:
        return failure
    except BrokerUnavailable as trouble:
        none_answered = NotConfirmed(len(outgoing))
        none_answered.unanswered, none_answered.detail = list(outgoing), str(trouble)
        return none_answered
    return None


class Retrier(Generic[_Origin]):
    """Sends refused messages again, apart from all others.

    Args:
        broker: where they go.
        metrics: counts what is refused and what is given up.
        ended: told of each message whose attempts are over, published or not.
        waiting: those that are to be tried again.
    """

    def __init__(
        self,
        broker: Broker,
        metrics: Metrics,
        ended: Callable[[Refused[_Origin]], None],
        waiting: Retries[_Origin] | None = None,
    ) -> None:
        self.waiting: Retries[_Origin] = Retries() if waiting is None else waiting
        self._broker = broker
        self._metrics = metrics
        self._ended = ended
        self._arrived = asyncio.Event()
        self._told: dict[str, tuple[float, int]] = {}

    def set_aside(self, message: Outgoing, origin: _Origin) -> Refused[_Origin] | None:
        """Have a message tried again that the broker refused; nothing if too many wait and it is given up."""
        self._refused(message)
        aside = Refused(message, origin)
        if not self.waiting.add(aside, asyncio.get_running_loop().time()):
            self.give_up(message, "too many wait to be tried again")
            return None
        self._arrived.set()
        return aside

    def give_up(self, message: Outgoing, why: str) -> None:
        """Publish a message no more."""
        self._metrics.outcomes_given_up.inc()
        self._tell("an answer is given up; it stays readable in the database", message, why=why)

    async def run(self) -> None:
        """Try what is due, forever; what goes to one place waits for nothing that goes to another."""
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as attempts:
            while True:
                self._arrived.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.waiting.seconds(clock())):
                        await self._arrived.wait()
                due: dict[str, list[Refused[_Origin]]] = {}
                for aside in self.waiting.due(clock()):
                    due.setdefault(aside.target, []).append(aside)
                for of_target in due.values():
                    attempts.create_task(self._attempt(of_target))

    async def _attempt(self, due: Sequence[Refused[_Origin]]) -> None:
        """Try once more, and then have each wait again, or have its attempts be over."""
        failure = await attempt(self._broker, [aside.message for aside in due])
        unanswered, refused, too_large = failure.by_identity() if failure is not None else (set(), set(), set())
        now = asyncio.get_running_loop().time()
        for aside in due:
            message = aside.message
            if id(message) in unanswered:
                self.waiting.put_off(aside, now)
                continue
            if id(message) in refused:
                self._refused(message)
                if self.waiting.again(aside, now):
                    continue
                self.give_up(message, f"the broker refused it {aside.attempts} times")
            elif id(message) in too_large:
                self.give_up(message, TOO_LARGE)
            self.waiting.drop(aside)
            self._ended(aside)
        self._arrived.set()  # what waits again is to be waited for

    def _refused(self, message: Outgoing) -> None:
        self._metrics.outcomes_refused.inc()
        self._tell("the broker refused an answer; it is tried again alone", message)

    def _tell(self, event: str, message: Outgoing, **more: str) -> None:
        """Log an event of one message, but each only now and then; ``times`` counts those since the last line."""
        now = asyncio.get_running_loop().time()
        at, times = self._told.get(event, (-_TELL_SECONDS, 0))
        if now - at < _TELL_SECONDS:
            self._told[event] = (at, times + 1)
            return
        self._told[event] = (now, 0)
        to = {"exchange": message.exchange, "routing_key": message.routing_key}
        _log.warning(event, command=message.message_id, times=times + 1, size=len(message.body), **to, **more)
