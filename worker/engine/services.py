"""A worker's life: its services side by side, and how it stops without losing anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from schemas.stopping import ended
from worker.engine.commit import Committer
from worker.engine.dead_letters import DeadLetters
from worker.engine.inquiries import answer, unanswered
from worker.engine.leases import Leases
from worker.engine.outbox import Outbox
from worker.engine.parking import Intervals, ParkedProbes
from worker.engine.permissions import Permissions
from worker.engine.shards import Membership, keep_share
from worker.engine.watch import Looking, Watch
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine
    from datetime import timedelta
    from typing import Any
    from uuid import UUID

    from worker.engine.intake import Intake
    from worker.engine.lanes import Lanes
    from worker.engine.ports import Broker, DeadLetter, Hypervisors, Ledger
    from worker.engine.result import Inquiry, Result
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

END_SECONDS: Final = 5.0
"""How long services may take to end once they are cancelled: as long as they close a transaction or a channel."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker works. Times are in seconds."""

    worker: UUID
    shards: int
    batch_limit: int
    committers: int
    park_deadline: timedelta
    probe_least: float
    probe_most: float
    verify_seconds: float
    sweep_seconds: float
    shutdown_seconds: float
    looking: Looking
    permissions: Permissions = field(default_factory=Permissions)


class Engine:
    """Runs the path from intake to acknowledgement."""

    def __init__(
        self,
        intake: Intake,
        lanes: Lanes,
        broker: Broker,
        ledger: Ledger,
        hypervisors: Hypervisors,
        pool: Membership,
        metrics: Metrics,
        options: Options,
    ) -> None:
        self._lanes = lanes
        self._broker = broker
        self._ledger = ledger
        self._hypervisors = hypervisors
        self._pool = pool
        self._metrics = metrics
        self._options = options
        self._leases = Leases(ledger, lanes)
        self._watch = Watch(ledger, hypervisors, lanes, self._leases, metrics, options.looking)
        self._outbox = Outbox(broker, ledger, metrics, options.sweep_seconds)
        self._dead_letters = DeadLetters(broker, lanes, metrics, self._outbox.answer_dead)
        self._committers = [
            Committer(
                lanes=lanes,
                ledger=ledger,
                outbox=self._outbox,
                metrics=metrics,
                limit=options.batch_limit,
                park_deadline=options.park_deadline,
                refusal=hypervisors.refusal,
                hand_on=self._hand_on,
                permissions=options.permissions,
            )
            for _ in range(options.committers)
        ]
        self._asking: set[asyncio.Task[None]] = set()
        self._down: str | None = None
        self.shards: frozenset[int] = frozenset()
        """The shards that are this worker's share, whether or not anything comes over them."""
        intake.dead_letter_with(self._dead_letters)

    @property
    def unpublished(self) -> int:
        """Messages of committed outcomes that the broker has not confirmed."""
        return self._outbox.unpublished

    @property
    def refused(self) -> int:
        """Messages that the broker refused and that are to be tried again."""
        return self._outbox.refused

    @property
    def problems(self) -> list[str]:
        """Why this worker cannot work now, in sentences for an operator."""
        troubles = (self._down, *(committer.down for committer in self._committers))
        down = next((trouble for trouble in troubles if trouble is not None), None)
        return [] if down is None else [f"the database does not answer: {down}"]

    def answer_dead(self, letter: DeadLetter) -> None:
        """Tell the sender of a message that the broker itself took out of its queue."""
        self._outbox.answer_dead(letter)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what was begun: commit, publish, acknowledge."""
        services = [asyncio.create_task(service) for service in self._services()]
        committing = [asyncio.create_task(committer.run(), name="committer") for committer in self._committers]
        stopping = asyncio.create_task(stop.wait())
        finishing: asyncio.Task[None] | None = None
        try:
            done, _ = await asyncio.wait([stopping, *services, *committing], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
            _log.info("stopping: finishing what was begun")
            self._lanes.close()
            finishing = asyncio.create_task(self._finish(committing))
            await asyncio.wait((finishing,), timeout=self._options.shutdown_seconds)
            if finishing.done():
                finishing.result()
        finally:
            tasks = [stopping, *services, *committing, *self._asking, *filter(None, (finishing,))]
            if left := await ended(tasks, END_SECONDS):
                _log.error("services do not end and are left", services=len(left))

    async def _finish(self, committing: Collection[asyncio.Task[None]]) -> None:
        """Commit what was taken, and publish its outcomes."""
        await asyncio.gather(*committing)
        await self._outbox.flushed()

    def _services(self) -> list[Coroutine[Any, Any, None]]:
        options = self._options
        attendant = ParkedProbes(
            self._ledger,
            self._hypervisors,
            self._lanes,
            self._metrics,
            Intervals(options.probe_least, options.probe_most, options.verify_seconds, options.park_deadline),
        )
        return [
            self._dead_letters.run(),
            self._outbox.publish(),
            self._outbox.retry(),
            self._outbox.tidy(),
            self._outbox.sweep(),
            attendant.run(),
            self._leases.run(),
            self._watch.run(),
            keep_share(self._pool, self._broker, options.worker, options.shards, self._hear_of_database, self._own),
        ]

    def _hear_of_database(self, trouble: str | None) -> None:
        self._down = trouble

    def _own(self, shards: frozenset[int]) -> None:
        self.shards = shards
        self._watch.serve(shards, self._options.shards)

    def _hand_on(self, result: Result) -> None:
        """What follows a commit: acknowledge, publish, dead-letter, ask."""
        deliveries = result.settled()
        self._broker.settle(deliveries)
        if len(deliveries) < len(result.done) or result.dead_lettered:
            self._leases.ended([*result.done, *(item for item, _, _ in result.dead_lettered)])
        self._outbox.add(result.changes.outbox, result.outcomes, result.unrecorded)
        for item, rendered in result.outcomes:
            if item.span is not None:
                item.span.end(rendered.status)
        for item, reason, detail in result.dead_lettered:
            self._dead_letters.dead_letter(item, reason, detail)
        self._watch.look_again(result.look_again)
        for node, inquiry in result.inquiries.items():
            self._lanes.pause(node)
            task = asyncio.create_task(self._inquire(node, inquiry), name=f"inquiry {node}")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _inquire(self, node: str, inquiry: Inquiry) -> None:
        try:
            facts = await answer(self._hypervisors, inquiry)
        except Exception:  # noqa: BLE001 - whatever went wrong, a lane must not wait forever
            _log.exception("asking a hypervisor failed; its node is taken as unreachable", node=node)
            facts = unanswered(inquiry)
        self._lanes.resume(node, facts)
