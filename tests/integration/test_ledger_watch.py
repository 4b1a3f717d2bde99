"""The fleet is watched with a real database and libvirt's test driver, and no broker: nothing here needs a message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from schemas.commands import MODELS
from tests.servers import Database
from tests.unit.engine.doubles import port
from worker.engine.commit import Committer
from worker.engine.inquiries import answer
from worker.engine.intake import Item, fingerprint
from worker.engine.lanes import Lanes
from worker.engine.leases import Leases
from worker.engine.parking import Intervals, ParkedProbes
from worker.engine.ports import Delivery
from worker.engine.result import Result
from worker.engine.watch import Looking, Watch
from worker.hypervisor import Hypervisors
from worker.ledger.drift import Drift, DriftFilter, drift
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger
from worker.telemetry.metrics import Metrics

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 60.0
GUESTS = [UUID(int=number) for number in range(1, 6)]


class Outbox:
    """Nobody is told."""

    def take_published(self) -> list[UUID]:
        return []

    def give_back(self, published: list[UUID]) -> None: ...


class Site:
    """A worker without a broker."""

    def __init__(self, pool: asyncpg.Pool, folder: Path, interval: float) -> None:
        self.pool, self.folder = pool, folder
        self.ledger, self.lanes, self.metrics = PostgresLedger(pool), Lanes(), Metrics()
        self.hypervisors = Hypervisors(allowed=[f"test://{folder}/*.xml"])
        self.leases = Leases(self.ledger, self.lanes)
        looking = Looking(interval, 16, 1000.0, 1000)
        self.watch = Watch(self.ledger, self.hypervisors, self.lanes, self.leases, self.metrics, looking)
        self.watch.serve([0], 1)
        self.outcomes: dict[UUID, str] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def services(self) -> list[Any]:
        committer = Committer(
            lanes=self.lanes,
            ledger=self.ledger,
            outbox=port(Outbox()),
            metrics=self.metrics,
            limit=256,
            park_deadline=timedelta(days=1),
            refusal=self.hypervisors.refusal,
            hand_on=self.hand_on,
        )
        # Asked by themselves, parked commands come back after half a minute: what comes sooner was woken.
        intervals = Intervals(0.1, 30.0, 30.0, timedelta(days=1))
        probes = ParkedProbes(self.ledger, self.hypervisors, self.lanes, self.metrics, intervals)
        return [committer.run(), probes.run(), self.watch.run()]

    def hand_on(self, result: Result) -> None:
        self.outcomes |= {item.command.id: rendered.status for item, rendered in result.outcomes}
        for node, inquiry in result.inquiries.items():
            self.lanes.pause(node)

            async def ask(node: str = node, inquiry: Any = inquiry) -> None:
                self.lanes.resume(node, await answer(self.hypervisors, inquiry))

            self._asking.add(asyncio.create_task(ask()))

    def host(self, name: str, *guests: UUID) -> str:
        """A host of its own with running guests."""
        domains = "".join(domain(guest) for guest in guests)
        file = self.folder / f"{name}.xml"
        file.write_text(f"<node>{domains}</node>")
        return f"test://{file}"

    async def send(self, kind: str, node: str, **fields: Any) -> str:
        model: Any = MODELS[kind]
        command = model(version=1, id=uuid4(), kind=kind, node=node, issued_at=datetime.now(UTC), **fields)
        body = command.model_dump_json().encode()
        delivery = Delivery(0, body, 0, None, redelivered=False, received_at=asyncio.get_running_loop().time())
        self.lanes.add(Item(command, fingerprint(command), delivery))
        await until(lambda: command.id in self.outcomes)
        return self.outcomes[command.id]

    def raw(self, node: str) -> Any:
        """libvirt's own connection, by which a guest is handled behind the ledger's back."""
        connection = self.hypervisors._links[node]._connection
        assert connection is not None
        return connection._connection

    async def drift(self, *, resolved: bool = False) -> list[Drift]:
        async with self.pool.acquire() as connection:
            return await drift(connection, DriftFilter(resolved=resolved))

    async def until_drift(self, *expected: tuple[str, UUID]) -> float:
        """Wait until exactly this differs; how long it took."""
        began = monotonic()
        while sorted((one.kind, one.instance) for one in await self.drift()) != sorted(expected):
            assert monotonic() - began < PATIENCE_SECONDS, await self.drift()
            await asyncio.sleep(0.02)
        return monotonic() - began


def domain(guest: UUID) -> str:
    return (
        f"<domain type='test'><name>guest-{guest.int}</name><uuid>{guest}</uuid><memory unit='MiB'>64</memory>"
        "<vcpu>1</vcpu><os><type>hvm</type></os></domain>"
    )


async def until(happened: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while not happened():
        assert monotonic() < deadline
        await asyncio.sleep(0.01)


@asynccontextmanager
async def site(database: Database, folder: Path, interval: float) -> AsyncIterator[Site]:
    pool = await connect_pool(database.worker_url, max_size=4)
    made = Site(pool, folder, interval)
    tasks = [asyncio.create_task(service) for service in made.services()]
    try:
        yield made
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await made.hypervisors.close()
        await pool.close()


CLAIM = {"project": "acme", "resources": {"vcpus": 1, "memory_mib": 64}}


async def test_what_differs_is_found_without_being_asked_and_what_is_right_is_not(
    database: Database, tmp_path: Path
) -> None:
    one, other, *_ = GUESTS
    async with site(database, tmp_path, interval=1.0) as here:
        await here.send("node.put", "cn-1", hypervisor=here.host("cn-1", one, other))
        await here.until_drift(("orphan", one), ("orphan", other))
        await here.send("claim", "cn-1", instance=one, **CLAIM)
        await here.until_drift(("orphan", other))
        assert await here.pool.fetchval("SELECT count(*) FROM nodeledger.command WHERE kind = 'look'") == 0
        assert await here.pool.fetchval("SELECT count(*) FROM nodeledger.parked_command") == 0


async def test_a_guest_that_is_stopped_started_or_undefined_by_hand_is_seen_by_its_event(
    database: Database, tmp_path: Path
) -> None:
    claimed, stranger, *_ = GUESTS
    async with site(database, tmp_path, interval=86_400.0) as here:
        await here.send("node.put", "cn-1", hypervisor=here.host("cn-1", claimed))
        await here.until_drift(("orphan", claimed))
        await here.send("claim", "cn-1", instance=claimed, **CLAIM)
        await here.pool.execute("UPDATE nodeledger.allocation SET claimed_at = now() - interval '1 hour'")
        started = here.raw("cn-1").createXML(domain(stranger))
        waited = [await here.until_drift(("orphan", stranger))]
        started.destroy()
        waited.append(await here.until_drift())
        guest = here.raw("cn-1").lookupByUUIDString(str(claimed))
        guest.destroy()
        guest.undefine()
        waited.append(await here.until_drift(("ghost", claimed)))
        assert all(seconds < 30 for seconds in waited), waited  # two where the machine is not busy
        assert len(await here.drift(resolved=True)) == 3


async def test_a_delete_goes_on_as_soon_as_its_domain_has_gone(database: Database, tmp_path: Path) -> None:
    one, *_ = GUESTS
    async with site(database, tmp_path, interval=86_400.0) as here:
        await here.send("node.put", "cn-1", hypervisor=here.host("cn-1", one))
        await here.send("claim", "cn-1", instance=one, **CLAIM)
        await until(lambda: here.hypervisors._links["cn-1"].speaks is True)
        assert await here.send("delete", "cn-1", instance=one) == "parked"
        began = monotonic()
        here.raw("cn-1").lookupByUUIDString(str(one)).destroy()
        await until(lambda: list(here.outcomes.values())[-1] == "applied")
        assert monotonic() - began < 29, "it was woken, and did not come back by itself"


async def test_a_host_that_does_not_answer_is_no_drift_and_leaves_nothing_behind(
    database: Database, tmp_path: Path
) -> None:
    one, *_ = GUESTS
    async with site(database, tmp_path, interval=1.0) as here:
        uri = here.host("cn-1", one)
        await here.send("node.put", "cn-1", hypervisor=uri)
        await here.until_drift(("orphan", one))
        missing = f"test://{tmp_path}/missing.xml"
        await here.send("node.put", "cn-2", hypervisor=missing)
        await here.send("claim", "cn-1", instance=one, **CLAIM)
        await here.until_drift()

        def looked() -> float:
            return float(
                here.metrics.registry.get_sample_value("nodeledger_looks_total", {"result": "unanswered"}) or 0
            )

        await until(lambda: looked() >= 3)
        assert await here.drift() == []
        reachable = "SELECT reachable FROM nodeledger.node_status WHERE node = 'cn-2'"
        assert await here.pool.fetchval(reachable) is False
        assert await here.pool.fetchval("SELECT count(*) FROM nodeledger.parked_command") == 0
        assert await here.pool.fetchval("SELECT count(*) FROM nodeledger.probe") == 0


async def test_how_busy_a_host_is_is_kept_where_it_tells(database: Database, tmp_path: Path) -> None:
    async with site(database, tmp_path, interval=1.0) as here:
        await here.send("node.put", "cn-1", hypervisor=here.host("cn-1"))
        node = await here.pool.fetchval("SELECT id FROM nodeledger.node")
        await here.pool.execute(
            "INSERT INTO nodeledger.host_load VALUES ($1, now(), 25, 25, 0, 50, 1024)"
            " ON CONFLICT (node_id) DO UPDATE SET user_percent = 25, kernel_percent = 25, iowait_percent = 0,"
            " idle_percent = 50, memory_used_mib = 1024",
            node,
        )
        measured = await here.ledger.load_in_all()
        assert {what: list(amounts) for what, amounts in measured.items()} == {
            "user": [25] * 4,
            "kernel": [25] * 4,
            "iowait": [0] * 4,
            "idle": [50] * 4,
            "memory": [33] * 4,
        }
        await here.send("node.remove", "cn-1", force=True)
        assert await here.pool.fetchval("SELECT count(*) FROM nodeledger.node_load") == 0
