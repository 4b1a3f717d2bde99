from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest.mock import Mock
from uuid import UUID

from worker.engine.intake import Item
from worker.engine.lanes import Lanes
from worker.engine.leases import Leases
from worker.engine.ports import Lease, Ledger
from worker.engine.result import Result
from worker.engine.services import Engine
from worker.telemetry.metrics import Metrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Due:
    """A ledger with leases that ran out, and the time of the loop."""

    def __init__(self, *leases: Lease) -> None:
        self.leases = list(leases)
        self.time = 0.0
        self.lanes = Lanes()
        self.attendant = Leases(cast(Ledger, self), self.lanes, lambda: self.time)

    async def due_leases(self, limit: int, after: Lease | None = None) -> list[Lease]:
        ordered = sorted(self.leases, key=_order)
        return [lease for lease in ordered if after is None or _order(lease) > _order(after)][:limit]

    async def look(self, after: float = 0.0) -> list[Item]:
        """What is put on the lanes when the leases are looked through, some seconds later."""
        self.time += after
        await self.attendant.look()
        batch = await self.lanes.take(100_000) if self.lanes.depth else None
        if batch is None:
            return []
        self.lanes.done(batch)
        return batch.items


def _order(lease: Lease) -> tuple[Any, ...]:
    return lease.expired_at, lease.instance, lease.node


def leases(count: int, node: str = "silent") -> list[Lease]:
    return [Lease(node, UUID(int=number), NOW) for number in range(count)]


async def test_however_many_wait_for_silent_hypervisors_the_others_run_out() -> None:
    due = Due(*leases(1200), Lease("cn-1", UUID(int=9999), NOW + timedelta(hours=1)))
    assert len(await due.look()) == 1201
    due.leases.append(Lease("cn-1", UUID(int=9998), NOW + timedelta(hours=2)))
    assert [item.command.node for item in await due.look(1)] == ["cn-1"]


async def test_what_is_still_on_its_lane_is_not_put_there_again() -> None:
    due = Due(*leases(3))
    assert len(await due.look()) == 3
    assert [await due.look(1) for _ in range(100)] == [[]] * 100


async def test_what_ended_in_vain_is_tried_again_later_each_time_and_at_least_once_a_minute() -> None:
    due = Due(*leases(1))
    tried: Counter[int] = Counter()
    for second in range(1200):
        items = await due.look(1)
        due.attendant.ended(items)
        tried[second // 60] += len(items)
    assert tried[0] >= 3
    assert all(1 <= tried[minute] <= 2 for minute in range(5, 20))


async def test_what_was_settled_is_forgotten() -> None:
    due = Due(*leases(3))
    due.attendant.ended(await due.look())
    due.leases.clear()
    await due.look()
    assert due.attendant._looks == {}


async def test_what_became_of_a_command_of_a_lease_is_told_by_the_engine() -> None:
    due = Due(*leases(2))
    options = Mock(committers=0, sweep_seconds=1.0)
    engine = Engine(Mock(), due.lanes, Mock(), cast(Ledger, due), Mock(), Mock(), Metrics("0"), options)
    due.attendant = engine._leases
    done, failed = await due.look()
    engine._hand_on(Result(done=[done], dead_lettered=[(failed, "poison", "as told")]))
    assert [look.on_its_lane for look in due.attendant._looks.values()] == [False, False]
