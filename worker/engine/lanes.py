"""Lanes: each node's waiting commands, first in, first out, behind that node's async lock."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.accounting.state.view import Facts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from worker.engine.intake import Item

_LEAST_SHARE = 8


@dataclass(slots=True)
class Lane:
    """One node's commands. ``facts`` are answers of its hypervisor that wait for the next decision."""

    node: str
    items: deque[Item] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    facts: Facts = field(default_factory=Facts)
    ready: bool = False
    asking: bool = False


@dataclass(slots=True)
class Batch:
    """Commands of many nodes that are decided together, whose lanes are locked until then."""

    items: list[Item]
    lanes: list[Lane]
    facts: Facts


class Lanes:
    """All lanes of a worker. Nodes do not wait for each other.

    A command that concerns a second node is on the lane of its own; the other
    one is guarded by the ledger alone.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self.depth = 0

    @property
    def count(self) -> int:
        """Nodes with commands that wait."""
        return len(self._lanes)

    @property
    def deepest(self) -> int:
        """Commands that wait for the busiest node."""
        return max((len(lane.items) for lane in self._lanes.values()), default=0)

    def oldest(self, now: float) -> float:
        """Seconds since the receipt of the command that waits longest."""
        heads = (lane.items[0].delivery for lane in self._lanes.values() if lane.items)
        return max((now - head.received_at for head in heads if head is not None), default=0.0)

    def close(self) -> None:
        """Give out nothing more; what still waits goes back to where it came from."""
        self._closed = True
        self._arrived.set()

    def add(self, item: Item) -> None:
        """Put a command at the end of its node's lane."""
        lane = self._lane(item.command.node)
        lane.items.append(item)
        self.depth += 1
        self._offer(lane)

    def put_first(self, node: str, items: Sequence[Item], facts: Facts | None = None) -> None:
        """Put commands before all others of their node, with what its hypervisor said."""
        lane = self._lane(node)
        lane.items.extendleft(reversed(items))
        self.depth += len(items)
        if facts is not None:
            lane.facts.update(facts)
        self._offer(lane)

    async def take(self, limit: int) -> Batch | None:
        """Wait for commands, then take up to ``limit`` of them, an even share from each lane, and lock their lanes.

        Returns nothing once the lanes are closed.
        """
        while True:
            await self._arrived.wait()
            if self._closed:
                return None
            batch = await self._gather(limit)
            if batch.items:
                return batch
            self._arrived.clear()

    async def _gather(self, limit: int) -> Batch:
        batch = Batch([], [], Facts())
        share = max(_LEAST_SHARE, limit // max(1, len(self._ready)))
        for _ in range(len(self._ready)):
            if len(batch.items) >= limit:
                break
            lane = self._ready.popleft()
            lane.ready = False
            if lane.asking or lane.lock.locked() or not lane.items:
                continue
            await lane.lock.acquire()
            batch.lanes.append(lane)
            most = min(share, limit - len(batch.items), len(lane.items))
            batch.items.extend(lane.items.popleft() for _ in range(most))
            self.depth -= most
            batch.facts.update(lane.facts)
            lane.facts = Facts()
        return batch

    def done(self, batch: Batch, held: Iterable[Item] = (), stuck: Collection[str] = ()) -> None:
        """Unlock the lanes of a batch; commands that could not be decided yet go back where they were.

        Of nodes that are ``stuck`` nothing parked stays on its lane: behind one
        that is still parked none may go on, and all come back with it.
        """
        back: dict[str, list[Item]] = {}
        for item in held:
            back.setdefault(item.command.node, []).append(item)
        for lane in batch.lanes:
            lane.lock.release()
            if items := back.get(lane.node):
                lane.items.extendleft(reversed(items))
                self.depth += len(items)
            if lane.node in stuck:
                self._forget_parked(lane)
            self._offer(lane)

    def bring_back(self, node: str, items: Sequence[Item], facts: Facts) -> None:
        """Put a node's parked commands first, in place of those that were brought back before and still wait."""
        self._forget_parked(self._lane(node))
        self.put_first(node, items, facts)

    def _forget_parked(self, lane: Lane) -> None:
        """Leave parked commands where they are parked; those whose letter is dead-lettered have yet to be recorded."""
        kept = [item for item in lane.items if item.parked is None or item.dead_lettered is not None]
        self.depth -= len(lane.items) - len(kept)
        lane.items = deque(kept)

    def pause(self, node: str) -> None:
        """Offer nothing of a node while its hypervisor is asked."""
        self._lane(node).asking = True

    def resume(self, node: str, facts: Facts) -> None:
        """Go on with a node, with what its hypervisor said."""
        lane = self._lane(node)
        lane.asking = False
        lane.facts.update(facts)
        self._offer(lane)

    def _lane(self, node: str) -> Lane:
        lane = self._lanes.get(node)
        if lane is None:
            lane = self._lanes[node] = Lane(node)
        return lane

    def _offer(self, lane: Lane) -> None:
        if lane.lock.locked() or lane.asking:
            return
        if not lane.items:
            self._lanes.pop(lane.node, None)
        elif not lane.ready:
            lane.ready = True
            self._ready.append(lane)
            self._arrived.set()
