"""Parked commands: probe the hypervisors they wait for, and bring them back in order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from worker.accounting.state.view import Facts
from worker.engine.inquiries import observe
from worker.engine.intake import unpark
from worker.engine.ports import LedgerUnavailable
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from worker.engine.lanes import Lanes
    from worker.engine.ports import Hypervisors, Ledger, Parked
    from worker.telemetry.metrics import Metrics

_log = get_logger(__name__)

_NODES_AT_ONCE: Final = 64
_COMMANDS_AT_ONCE: Final = 500
_TIDY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often a node with parked commands is asked, in seconds, and until when they wait.

    While it does not answer, the interval doubles from ``least`` to ``most``. One
    that answers and of which only deletes wait, for their domains to go, is asked
    every ``verify`` seconds. What has waited for ``deadline`` is put away.
    """

    least: float
    most: float
    verify: float
    deadline: timedelta


class ParkedProbes:
    """Asks for every node with parked commands whether its hypervisor answers again.

    Workers share the nodes: asking one leaves it to the asker for an interval.
    """

    def __init__(
        self,
        ledger: Ledger,
        hypervisors: Hypervisors,
        lanes: Lanes,
        metrics: Metrics,
        every: Intervals,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._hypervisors = hypervisors
        self._lanes = lanes
        self._metrics = metrics
        self._every = every
        self._pause = pause

    async def run(self) -> None:
        """Probe, count what waits, and forget what waits no more, forever."""
        loop = asyncio.get_running_loop()
        tidied = -_TIDY_SECONDS
        while True:
            await self._pause(self._every.least)
            try:
                if loop.time() - tidied >= _TIDY_SECONDS:
                    tidied = loop.time()
                    await self._tidy()
                nodes = await self._ledger.due_probes(_NODES_AT_ONCE, least=self._every.least, most=self._every.most)
                addresses = await self._ledger.addresses(nodes)
                await asyncio.gather(*(self._probe(node, addresses.get(node)) for node in nodes))
            except LedgerUnavailable as trouble:
                _log.info("probing waits for the database", error=str(trouble))

    async def _tidy(self) -> None:
        commands, nodes = await self._ledger.parked_in_all()
        self._metrics.parked.set(commands)
        self._metrics.parked_nodes.set(nodes)
        self._metrics.differing(await self._ledger.drift_in_all())
        await self._ledger.forget_probes()

    async def _probe(self, node: str, address: str | None) -> None:
        """Bring a node's parked commands back if it answers, or if they have waited for too long.

        A node that has no hypervisor any more, or is gone, is not asked: its
        commands are decided as they are.
        """
        facts = Facts()
        reachable = True
        if address is not None:
            facts.observations[node] = await observe(self._hypervisors, node, address)
            reachable = facts.observations[node].inventory is not None
        parked = await self._ledger.parked(node, _COMMANDS_AT_ONCE)
        if reachable:
            await self._ledger.probe_again(node, self._next(parked))
        else:
            overdue = datetime.now(UTC) - self._every.deadline
            parked = [one for one in parked if one.parked_at is not None and one.parked_at <= overdue]
        if parked:
            self._lanes.bring_back(node, [unpark(one) for one in parked], facts)

    def _next(self, parked: Sequence[Parked]) -> float:
        """How long to leave a node that answers alone: what others wait behind, or a full page, is looked at soon."""
        settling = len(parked) == _COMMANDS_AT_ONCE or any(one.blocking for one in parked)
        return self._every.least if settling else self._every.verify
