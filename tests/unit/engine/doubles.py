"""What the engine's services meet in their unit tests in place of the servers, and how a test follows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from schemas import Audit
from worker.engine.intake import Item
from worker.engine.ports import (
    BrokerUnavailable,
    DeadLetter,
    Delivery,
    Hypervisor,
    HypervisorUnreachable,
    LedgerUnavailable,
    Parked,
    Reply,
    Standing,
    Unpublished,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PATIENCE_SECONDS = 20


class Rounds:
    """The pause of a service, given out by the test: it begins another round when the test lets it.

    ``asked`` are the seconds for which it wanted to wait, in their order.
    """

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._paused = asyncio.Event()
        self._go_on = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._paused.set()
        await self._go_on.wait()
        self._go_on.clear()

    def go_on(self) -> None:
        """Let it begin a round, which may be one without a pause."""
        self._paused.clear()
        self._go_on.set()

    async def paused(self) -> None:
        """Wait until the service pauses."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._paused.wait()

    async def round(self) -> None:
        """Let it make one whole round, from its pause to its next."""
        await self.paused()
        self.go_on()
        await self.paused()


@asynccontextmanager
async def running(*services: Any) -> AsyncIterator[None]:
    """Services that run until the end, and do not end before."""
    tasks = [asyncio.create_task(service) for service in services]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def audit(node: str, number: int = 1) -> Item:
    command = Audit(version=1, id=UUID(int=number), node=node, kind="audit", issued_at=NOW)
    return Item(command, UUID(int=number), Delivery(0, b"{}", number, None, False, 0.0))


def parked(node: str, number: int, at: datetime = NOW) -> Parked:
    body = f'{{"version":1,"id":"{UUID(int=number)}","kind":"audit","node":"{node}","issued_at":"{NOW.isoformat()}"}}'
    return Parked(
        node=node,
        command=UUID(int=number),
        body=body.encode(),
        reply=Reply(),
        user_id=None,
        received_at=at,
        blocking=True,
        detail="",
        parked_at=at,
    )


class Ledger:
    """A ledger of parked commands and unpublished batches. While it is ``away`` it answers nothing."""

    def __init__(self) -> None:
        self.away = False
        self.rows: dict[str, list[Parked]] = {}
        self.hypervisor_of: dict[str, str] = {}
        self.intervals: dict[str, int] = {}
        self.woken: list[set[str]] = []
        self.due: list[str] = []
        self.asked_again: dict[str, float] = {}
        self.forgotten = 0
        self.noted: list[UUID] = []
        self.left: list[Unpublished] = []
        self.hanging: asyncio.Event | None = None

    def _there(self) -> None:
        if self.away:
            raise LedgerUnavailable("away")

    @asynccontextmanager
    async def transaction(self, *, locking: bool) -> AsyncIterator[Any]:  # noqa: ARG002 - as the port
        """Sets ``hanging`` and hangs, if it is given."""
        if self.hanging is None:
            raise LedgerUnavailable("away")
        self.hanging.set()
        await asyncio.Event().wait()
        yield

    async def parked_in_all(self) -> tuple[int, int]:
        self._there()
        return sum(map(len, self.rows.values())), len(self.rows)

    async def hypervisors(self) -> list[Hypervisor]:
        self._there()
        return [Hypervisor(node, uri, self.intervals.get(node)) for node, uri in self.hypervisor_of.items()]

    async def standings(self, nodes: Sequence[str]) -> dict[str, Standing]:
        self._there()
        waiting = {node: len(self.rows.get(node, ())) for node in nodes}
        known = [node for node in nodes if node in self.hypervisor_of]
        return {node: Standing(1, self.hypervisor_of[node], None, waiting[node]) for node in known}

    async def wake_probes(self, nodes: Sequence[str]) -> None:
        self._there()
        self.woken.append(set(nodes))

    async def drift_in_all(self) -> dict[str, int]:
        return {}

    async def load_in_all(self) -> dict[str, Sequence[int]]:
        return {}

    async def forget_probes(self) -> None:
        self.forgotten += 1

    async def due_probes(self, limit: int, *, least: float, most: float) -> list[str]:  # noqa: ARG002 - as the port
        self._there()
        return self.due[:limit]

    async def addresses(self, nodes: Collection[str]) -> dict[str, str]:
        return {node: self.hypervisor_of[node] for node in nodes if node in self.hypervisor_of}

    async def parked(self, node: str, limit: int) -> list[Parked]:
        return self.rows.get(node, [])[:limit]

    async def probe_again(self, node: str, seconds: float) -> None:
        self.asked_again[node] = seconds

    async def unpublished(self, _age: float, limit: int) -> list[Unpublished]:
        self._there()
        return [left for left in self.left if left.outbox not in self.noted][:limit]

    async def published(self, outboxes: Sequence[UUID]) -> None:
        self._there()
        self.noted += outboxes

    async def narrow_unpublished(self, missing: Mapping[UUID, Sequence[UUID]], seconds: float) -> None: ...


class Broker:
    """A broker that keeps what it is given; of those in ``away`` (publish, dead_letter, in_line) it does nothing."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.sent: list[str] = []
        self.letters: list[DeadLetter] = []
        self.settled: list[int] = []
        self.serving: set[int] = set()
        self.yielded: list[set[int]] = []

    def _there(self, what: str) -> None:
        if what in self.away:
            raise BrokerUnavailable("away")

    async def publish(self, messages: Sequence[Any]) -> None:
        self._there("publish")
        self.sent += [message.routing_key for message in messages]

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        self._there("dead_letter")
        self.letters += letters

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        self.settled += [delivery.tag for delivery in deliveries]

    async def in_line(self) -> None:
        self._there("in_line")

    def served(self) -> set[int]:
        return self.serving

    async def yield_shards(self, shards: Collection[int]) -> None:
        self._there("yield")
        self.yielded.append(set(shards))


class Hypervisors:
    """Hypervisors of which those named ``silent`` do not answer."""

    def __init__(self, silent: Collection[str] = ()) -> None:
        self.silent = set(silent)
        self.asked: list[str] = []
        self.refusal: Callable[[str], str | None] = lambda _uri: None
        self.mute: set[str] = set()
        self.watched: set[str] = set()
        self.knocked: list[str] = []

    def report_to(self, listener: Any) -> None:
        self.listener = listener

    def watch(self, node: str, uri: str) -> bool:  # noqa: ARG002 - as the port
        self.watched.add(node)
        return node not in self.mute

    def unwatch(self, node: str) -> None:
        self.watched.discard(node)

    async def knock(self, node: str) -> bool:
        self.knocked.append(node)
        return node not in self.silent

    async def load(self, node: str, uri: str) -> None:
        """Nothing is known of it."""

    async def domains(self, node: str, uri: str) -> list[Any]:  # noqa: ARG002 - as the port
        if node in self.silent:
            raise HypervisorUnreachable("silent")
        return []

    async def inventory(self, node: str, uri: str) -> Any:  # noqa: ARG002 - as the port
        self.asked.append(node)
        if node in self.silent:
            raise HypervisorUnreachable("silent")
        return object()

    def host_uuid(self, node: str) -> UUID | None:  # noqa: ARG002 - as the port
        return None


class Members:
    """Who owns each shard; while ``away``, nobody knows."""

    def __init__(self, owners: dict[int, UUID]) -> None:
        self.owners = owners
        self.away = False
        self.beats = 0

    async def heartbeat(self) -> None:
        if self.away:
            raise LedgerUnavailable("away")
        self.beats += 1

    async def assign(self, shards: int) -> dict[int, UUID]:
        return {shard: self.owners[shard] for shard in range(shards)}


def port(double: object) -> Any:
    """A double as the port that it stands for."""
    return cast("Any", double)
