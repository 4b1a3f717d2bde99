"""Looking at the fleet without being asked: on a schedule, where something happens, and where a host is back.

A worker watches the nodes of the shards that are its own. What it looks at, it
asks outside of the nodes' lanes, which nobody waits for; what it saw goes to the
front of the lane as a command of the worker's own, which answers nobody.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from schemas import shard_of
from worker.accounting.rules.looks import START, Look
from worker.accounting.state.view import Facts, Sight
from worker.engine.inquiries import observe
from worker.engine.intake import Item, fingerprint
from worker.engine.ports import HypervisorUnreachable, LedgerUnavailable
from worker.engine.schedule import Schedule
from worker.engine.silence import Silence
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from worker.engine.lanes import Lanes
    from worker.engine.leases import Leases
    from worker.engine.ports import Hypervisor, Hypervisors, Ledger, Standing
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

_TICK_SECONDS: Final = 0.1
_FOLLOW_SECONDS: Final = 5.0
"""How soon a node that was put, or removed, is noticed; reading ten thousand takes some 30 ms."""
_MEASURE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Looking:
    """How much a worker looks: ``interval`` in seconds where a policy does not say, calls at a time and a second.

    ``watched`` is how many hypervisors it listens to at most.
    """

    interval: float
    calls: int
    rate: float
    watched: int


class Watch:
    """Looks at the nodes of this worker's shards. See :class:`worker.engine.ports.Listener`, which it is."""

    def __init__(
        self,
        ledger: Ledger,
        hypervisors: Hypervisors,
        lanes: Lanes,
        leases: Leases,
        metrics: Metrics,
        looking: Looking,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._hypervisors = hypervisors
        self._lanes = lanes
        self._leases = leases
        self._metrics = metrics
        self._looking = looking
        self._clock = clock
        self._pause = pause
        self._schedule = Schedule(looking.rate)
        self._shards: tuple[frozenset[int], int] = (frozenset(), 1)
        self._follow_at = 0.0
        self._measure_at = 0.0
        self._listening: dict[str, str] = {}
        self._mute: set[str] = set()
        self._full = False
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._failed: set[str] = set()
        self._allowance = 0.0
        self._allowed_at = clock()
        self._silence = Silence(hypervisors, clock)
        self._happened: set[str] = set()
        self._news: list[tuple[str, str, str | None, float]] = []
        hypervisors.report_to(self)

    def serve(self, shards: Collection[int], of: int) -> None:
        """Look at the nodes of these shards from now on, of so many there are."""
        if self._shards != (now := (frozenset(shards), of)):
            self._shards, self._follow_at = now, 0.0

    def look_again(self, nodes: Collection[str]) -> None:
        """Guests are being started there: look at them once they should be."""
        for node in nodes:
            self._schedule.hurry(node, self._clock(), START.total_seconds())

    def happened(self, node: str) -> None:
        """Something changed on a node."""
        self._happened.add(node)
        self._schedule.hurry(node, self._clock())

    def fell_silent(self, node: str, uri: str, detail: str) -> None:
        """A node does not answer any more."""
        self._silence.begins(node)
        self._news.append((node, uri, detail, 0.0))

    def came_back(self, node: str, uri: str) -> None:
        """A node answers again: what waits for it is looked at now."""
        if (silent := self._silence.ends(node)) is not None:
            self._news.append((node, uri, None, silent))
        self.happened(node)

    async def run(self) -> None:
        """Look, listen and knock, forever."""
        try:
            while True:
                await self._pause(_TICK_SECONDS)
                try:
                    await self._round(self._clock())
                except LedgerUnavailable as trouble:
                    _log.info("looking at hypervisors waits for the database", error=str(trouble))
        finally:
            self._silence.close()
            for task in self._busy.values():
                task.cancel()

    async def _round(self, now: float) -> None:
        await self._wake()
        await self._tell()
        if now >= self._follow_at:
            self._follow_at = now + _FOLLOW_SECONDS
            self._follow(await self._ledger.hypervisors(), now)
        if now >= self._measure_at:
            self._measure_at = now + _MEASURE_SECONDS
            self._metrics.busy(await self._ledger.load_in_all())
        self._silence.knock(self._schedule, now)
        if due := self._due(now):
            for node, standing in (await self._standings(due, now)).items():
                task = asyncio.create_task(self._look(node, standing), name=f"look at {node}")
                self._busy[node] = task
                task.add_done_callback(partial(self._looked, node))
        self._metrics.looks_skipped.inc(self._schedule.skipped)
        self._schedule.skipped = 0

    async def _standings(self, due: list[str], now: float) -> dict[str, Standing]:
        """How the nodes stand whose turn it is; while the database is away their turn comes again."""
        try:
            return await self._ledger.standings(due)
        except LedgerUnavailable:
            for node in due:
                self._schedule.hurry(node, now)
            raise

    def _looked(self, node: str, task: asyncio.Task[None]) -> None:
        del self._busy[node]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a look at a hypervisor failed", node=node, error=repr(error))

    def _due(self, now: float) -> list[str]:
        """Nodes to be looked at now: so many at a time and a second.

        Hosts that failed the last time have as many calls of their own, so that
        those that hang keep nobody else from being looked at; their turns are
        left out beyond that, and they are knocked at.
        """
        rate, calls = self._looking.rate, self._looking.calls
        self._allowance = min(max(1.0, rate / 2), self._allowance + (now - self._allowed_at) * rate)
        self._allowed_at = now
        failing = sum(node in self._failed for node in self._busy)
        most = min(calls - (len(self._busy) - failing), int(self._allowance))
        due = self._schedule.due(now, max(0, most), self._busy)
        left_out = set([node for node in due if node in self._failed][max(0, calls - failing) :])
        self._schedule.skipped += len(left_out)
        return [node for node in due if node not in left_out]

    def _follow(self, fleet: Collection[Hypervisor], now: float) -> None:
        """Have the turns of the nodes that are this worker's, and listen to as many as may be."""
        served, of = self._shards
        self._silence.keep({one.node for one in fleet})
        own = {one.node: one for one in fleet if shard_of(one.node, of) in served}
        default = self._looking.interval
        intervals = {node: default if one.interval is None else one.interval for node, one in own.items()}
        for node in self._schedule.follow(intervals, now):
            self._failed.discard(node)
        for node in self._listening.keys() - {node for node in own if node in self._schedule}:
            del self._listening[node]
            self._mute.discard(node)
            self._hypervisors.unwatch(node)
        for node, one in own.items():
            if node in self._schedule and self._listening.get(node) != one.address:
                self._listen(node, one.address)

    def _listen(self, node: str, address: str) -> None:
        if node not in self._listening and len(self._listening) >= self._looking.watched:
            if not self._full and self._looking.watched:
                _log.warning(
                    "more hypervisors than are listened to; the others are looked at", most=len(self._listening)
                )
            self._full = True
            return
        try:
            self._hypervisors.watch(node, address)
        except HypervisorUnreachable:
            return  # its address is not allowed here, which the look tells
        self._listening[node] = address

    async def _look(self, node: str, standing: Standing) -> None:
        """Ask a hypervisor what it has and what runs there, and put that on its node's lane."""
        self._allowance -= 1.0
        self._keep_listening(node, standing.address)
        observation = await observe(self._hypervisors, node, standing.address)
        listing, load = None, None
        if observation.inventory is not None:
            try:
                load = await self._hypervisors.load(node, standing.address)
                listing = await self._hypervisors.domains(node, standing.address)
            except HypervisorUnreachable:
                listing = None
        self._metrics.looks.labels("unanswered" if listing is None else "answered").inc()
        if not self._keep_listening(node, standing.address) and node not in self._mute:
            self._mute.add(node)
            _log.info("a hypervisor tells no events; it is looked at on schedule alone", node=node)
        if listing is None:
            self._failed.add(node)
            if standing.reachable is False:
                return  # known already
        else:
            self._failed.discard(node)
            if node in self._silence:  # it fell silent at another address
                self.came_back(node, standing.address)
        sight = Sight(standing.generation, standing.address, listing, load)
        self._lanes.put_first(node, [_item(node)], Facts(observations={node: observation}, sights={node: sight}))

    def _keep_listening(self, node: str, address: str) -> bool:
        """Listen again where somebody else asked at another address meanwhile; says whether something is told."""
        try:
            return self._listening.get(node) != address or self._hypervisors.watch(node, address)
        except HypervisorUnreachable:
            return True  # nothing is known of it

    async def _wake(self) -> None:
        """Have what waits for a hypervisor looked at where something happened."""
        if self._happened:
            nodes, self._happened = self._happened, set()
            try:
                await self._ledger.wake_probes(sorted(nodes))
            except LedgerUnavailable:
                self._happened |= nodes
                raise
            self._leases.wake(nodes)

    async def _tell(self) -> None:
        """Log which hosts fell silent and which are back, each once, with what waits for them."""
        if not self._news:
            return
        standings = await self._ledger.standings([node for node, *_ in self._news])
        news, self._news = self._news, []
        for node, address, detail, silent in news:
            waiting = standings[node].parked if node in standings else 0
            if detail is not None:
                _log.warning("a hypervisor does not answer", node=node, address=address, error=detail, waiting=waiting)
            else:
                seconds = round(silent, 1)
                _log.info("a hypervisor answers again", node=node, address=address, after=seconds, waiting=waiting)


def _item(node: str) -> Item:
    command = Look(version=1, id=uuid4(), node=node, issued_at=datetime.now(UTC))
    return Item(command, fingerprint(command))
