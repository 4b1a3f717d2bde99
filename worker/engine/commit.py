"""The middle of the path: take a batch, commit it in one transaction, hand on what came of it.

Nothing is acknowledged, published or asked before the commit; what a failed
commit leaves in doubt is run again, and the ids tell what happened.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import uuid4

from schemas.backoff import Backoff
from worker.engine.batch import Decider
from worker.engine.drift import log_drift
from worker.engine.intake import about, trace_of
from worker.engine.permissions import Permissions
from worker.engine.ports import LedgerConflict, LedgerUnavailable
from worker.engine.result import Result, read_keys
from worker.telemetry.logs import get_logger, log_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from uuid import UUID

    from worker.accounting.rules.decision import Decision
    from worker.accounting.state.view import Facts
    from worker.engine.intake import Item
    from worker.engine.lanes import Batch, Lanes
    from worker.engine.outbox import Outbox
    from worker.engine.ports import Ledger, OutcomeRecord, ReadKeys
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

MAX_ATTEMPTS: Final = 3
"""How often a command that makes the code fail, or kills its worker, is tried before it is put away."""

_T = TypeVar("_T")


_BACKOFF: Final = Backoff(0.025, 5.0)
"""A database that is restarted is back in seconds; what waits for it has locked its lanes."""


@dataclass(slots=True)
class Committer:
    """Commits batches, one at a time; several of them work side by side on different lanes.

    ``hand_on`` takes what came of a commit, before the lanes are unlocked.
    """

    lanes: Lanes
    ledger: Ledger
    outbox: Outbox
    metrics: Metrics
    limit: int
    park_deadline: timedelta
    refusal: Callable[[str], str | None]
    hand_on: Callable[[Result], None]
    permissions: Permissions = field(default_factory=Permissions)
    down: str | None = None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self) -> None:
        """Commit batch after batch, until the lanes are closed."""
        while (batch := await self.lanes.take(self.limit)) is not None:
            await self._settle(batch)

    async def _settle(self, batch: Batch) -> None:
        """Bring a batch to its end. Its lanes are unlocked whatever happens."""
        held: list[Item] = []
        stuck: set[str] = set()
        try:
            for result in await self._guarded(batch.items, batch.facts):
                self.hand_on(result)
                held += result.held
                stuck |= result.stuck
        finally:
            self.lanes.done(batch, held, stuck)

    async def _guarded(self, items: Sequence[Item], facts: Facts) -> list[Result]:
        """Watch commands that were delivered before: one of them may be what killed its worker.

        Their attempts are counted before they begin. Those that were begun and not
        finished go alone, so that what kills the process takes no other with it.
        What has to wait for an answer is counted when it begins again: whoever
        kills the worker meanwhile, it does not.
        """
        before = [item for item in items if item.delivery is not None and item.delivery.redelivered]
        if fresh := [item for item in before if item.attempts is None]:
            attempts = await self._patiently(lambda: self.ledger.attempts([item.command.id for item in fresh]))
            for item in fresh:
                item.attempts = attempts.get(item.command.id, 0)
        if any(item.attempts for item in before):
            results = await self._one_by_one(items, facts)
        else:
            await self._count(before)
            results = await self._isolating(items, facts)
            await self._uncount(results)
        return results

    async def _one_by_one(self, items: Sequence[Item], facts: Facts) -> list[Result]:
        results: list[Result] = []
        stopped: set[str] = set()
        for item in items:
            attempts = item.attempts or 0
            if item.command.node in stopped:
                results.append(Result(held=[item]))
                continue
            if attempts >= MAX_ATTEMPTS and item.dead_lettered is None:
                detail = f"its worker died {attempts} times while this command was tried, the last times alone"
                results.append(Result(dead_lettered=[(item, "poison", detail)]))
                continue
            if item.delivery is not None and item.delivery.redelivered:
                await self._count([item])
            of_one = await self._isolating([item], facts)
            await self._uncount(of_one)  # at once: those behind it take their time, and may be what kills the worker
            results += of_one
            stopped.update(*(result.inquiries.keys() | result.stuck for result in of_one))
        return results

    async def _isolating(self, items: Sequence[Item], facts: Facts, attempts: int = 1) -> list[Result]:
        """Commit; where the code itself fails, split until the culprit stands alone, and put that away."""
        try:
            return [await self._commit(items, facts)]
        except Exception as error:  # noqa: BLE001 - whatever a command makes the code raise is that command's fault
            self.metrics.batch_retries.labels("failure").inc()
            if len(items) == 1:
                return await self._again(items[0], facts, attempts, error)
        middle = len(items) // 2
        results = await self._isolating(items[:middle], facts)
        stopped = {node for result in results for node in result.inquiries.keys() | result.stuck}
        rest = [item for item in items[middle:] if item.command.node not in stopped]
        if rest:
            results += await self._isolating(rest, facts)
        results.append(Result(held=[item for item in items[middle:] if item.command.node in stopped]))
        return results

    async def _again(self, item: Item, facts: Facts, attempts: int, error: Exception) -> list[Result]:
        if attempts < MAX_ATTEMPTS:
            return await self._isolating([item], facts, attempts + 1)
        with about(item.command):
            _log.error("command fails for good", error=repr(error))
        if item.dead_lettered is not None:
            return [Result(done=[item])]  # its letter is safe: what cannot be written down must not die again forever
        return [Result(dead_lettered=[(item, "poison", trace_of(error))])]

    async def _commit(self, items: Sequence[Item], facts: Facts) -> Result:
        """One transaction, run again for as long as the database is away or another worker was faster.

        Its nodes are locked from the start where it met a conflict before, and where
        all that is on a node must be known, which two reads together tell.
        """
        want = read_keys(items, facts)
        locking = bool(want.members)
        failures = 0
        while True:
            outbox = uuid4()
            published = self.outbox.take_published()
            try:
                result = await self._once(items, facts, want, outbox, published, locking=locking)
            except LedgerConflict as conflict:
                want.nodes |= conflict.nodes
                locking = True
                self.metrics.batch_retries.labels(conflict.cause).inc()
                if conflict.cause == "deadlock":
                    _log.warning("transactions waited for each other; the batch is run again", error=str(conflict))
            except LedgerUnavailable as trouble:
                self._went_down(trouble)
                failures += 1
                await self.pause(_BACKOFF.seconds(failures))
            else:
                self.down = None
                return result
            self.outbox.give_back(published)

    async def _once(
        self,
        items: Sequence[Item],
        facts: Facts,
        want: ReadKeys,
        outbox: UUID,
        published: list[UUID],
        *,
        locking: bool,
    ) -> Result:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self.ledger.transaction(locking=locking) as transaction:
            loaded = await transaction.load(want)
            decider = Decider(
                loaded=loaded,
                facts=facts,
                clock=began,
                park_deadline=self.park_deadline,
                refusal=self.refusal,
                permissions=self.permissions,
            )
            result = decider.run(items)
            changes = result.changes
            changes.published = published
            if changes.answers:
                changes.outbox = outbox
            if changes or published or facts.observations:
                await transaction.write(loaded, changes)
        ended = loop.time()
        ages = [ended - item.delivery.received_at for item in result.done if item.delivery is not None]
        self.metrics.committed(changes.answers, nodes=len(want.nodes), seconds=ended - began, ages=ages)
        _log_too_complex(changes.answers)
        self.metrics.duplicates.inc(result.duplicates)
        self._tell_denied(result.denied)
        log_drift(changes.drift)
        return result

    def _tell_denied(self, denied: Iterable[tuple[Item, Decision]]) -> None:
        """Tell operators what the rules refused: nothing of it is written down."""
        for item, decision in denied:
            self.metrics.denied(item.command.kind)
            with about(item.command):
                _log.warning("refused by the rules", detail=decision.reasons[0].detail)

    async def _count(self, items: Sequence[Item]) -> None:
        """Count an attempt of each, once for as long as this worker lives."""
        fresh = [item for item in items if not item.counted]
        if fresh:
            await self._patiently(lambda: self.ledger.count_attempts([item.command.id for item in fresh]))
        for item in fresh:
            item.counted = True

    async def _uncount(self, results: Sequence[Result]) -> None:
        """Take back the count of those that go back to their lanes."""
        waiting = [item for result in results for item in result.held if item.counted]
        if waiting:
            await self._patiently(lambda: self.ledger.uncount_attempts([item.command.id for item in waiting]))
        for item in waiting:
            item.counted = False

    async def _patiently(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask the ledger until it answers."""
        failures = 0
        while True:
            try:
                return await ask()
            except LedgerUnavailable as trouble:
                self._went_down(trouble)
                failures += 1
                await self.pause(_BACKOFF.seconds(failures))

    def _went_down(self, trouble: LedgerUnavailable) -> None:
        if self.down is None:
            _log.warning("the database does not answer; waiting for it", error=str(trouble))
            self.metrics.database_losses.inc()
        self.down = str(trouble)


def _log_too_complex(answers: Iterable[OutcomeRecord]) -> None:
    """Tell of commands that no worker can decide: a producer asks for what should not be, or the bound is too low."""
    for answer in answers:
        if "too_complex" in answer.codes:
            with log_context(command=answer.command, kind=answer.kind, node=answer.node, instance=answer.instance):
                _log.warning("refused as too complex")
