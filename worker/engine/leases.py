"""Leases: what was claimed or prepared for a time only, and not confirmed in it, is given back.

A lease that ran out may have to wait: while a hypervisor does not answer,
nothing proves that it is not used. So each has its own next look, later with
each in vain, and at most one command on its lane.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from schemas.backoff import Backoff
from worker.accounting.rules.lifecycle import Expire
from worker.engine.intake import Item, fingerprint
from worker.engine.ports import LedgerUnavailable
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from worker.engine.lanes import Lanes
    from worker.engine.ports import Lease, Ledger

_log = get_logger(__name__)

_PAGE: Final = 500
_PAGES: Final = 20
"""At most 10,000 leases are looked through at once, in some 50 ms of the database."""
_EVERY_SECONDS: Final = 1.0
_BACKOFF: Final = Backoff(1.0, 60.0, jitter=0.5)
_NAMESPACE: Final = UUID("6f2d1c0e-8a53-5e0b-9d0c-1f9a8f3f6b11")


@dataclass(slots=True)
class _Look:
    """What is known of a lease that ran out: whether its command is on the path, and when it may be put there again."""

    node: str
    on_its_lane: bool = True
    in_vain: int = 0
    next_at: float = 0.0
    seen: int = 0


class Leases:
    """Puts a command on the lane of each lease that ran out, until it is settled.

    Commands' ids are made of their leases, so that however many workers notice
    one, it expires once.
    """

    def __init__(
        self,
        ledger: Ledger,
        lanes: Lanes,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._lanes = lanes
        self._clock = clock
        self._pause = pause
        self._looks: dict[UUID, _Look] = {}
        self._round = 0
        self._last: Lease | None = None

    async def run(self) -> None:
        """Look through all leases that ran out, again and again, forever."""
        while True:
            await self._pause(_EVERY_SECONDS)
            try:
                await self.look()
            except LedgerUnavailable as trouble:
                _log.info("expiring leases waits for the database", error=str(trouble))

    async def look(self) -> None:
        """Go on through the leases that ran out; at their end forget those that were settled, and begin anew."""
        now = self._clock()
        for _ in range(_PAGES):
            leases = await self._ledger.due_leases(_PAGE, self._last)
            for lease in leases:
                self._offer(expiry(lease), now)
            if len(leases) < _PAGE:
                self._looks = {id_: look for id_, look in self._looks.items() if look.seen == self._round}
                self._round += 1
                self._last = None
                return
            self._last = leases[-1]

    def _offer(self, item: Item, now: float) -> None:
        look = self._looks.get(item.command.id)
        if look is None:
            self._looks[item.command.id] = _Look(item.command.node, seen=self._round)
            self._lanes.add(item)
            return
        look.seen = self._round
        if not look.on_its_lane and look.next_at <= now:
            look.on_its_lane = True
            self._lanes.add(item)

    def ended(self, items: Iterable[Item]) -> None:
        """Commands, among them some of leases, came to their end; where a lease is still there later, in vain."""
        for item in items:
            look = self._looks.get(item.command.id)
            if look is not None:
                look.on_its_lane = False
                look.in_vain += 1
                look.next_at = self._clock() + _BACKOFF.seconds(look.in_vain)

    def wake(self, nodes: Collection[str]) -> None:
        """Something happened on nodes: look at their leases at once."""
        for look in self._looks.values():
            if look.node in nodes:
                look.in_vain, look.next_at = 0, 0.0


def expiry(lease: Lease) -> Item:
    """The command that ends a lease."""
    command = Expire(
        version=1,
        id=uuid5(_NAMESPACE, f"{lease.instance}/{lease.node}/{lease.expired_at.isoformat()}"),
        node=lease.node,
        issued_at=datetime.now(UTC),
        instance=lease.instance,
    )
    return Item(command, fingerprint(command))
