from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from schemas import Inventory
from schemas.commands import MODELS
from tests.servers import Database
from worker.accounting.state.domains import Domain
from worker.accounting.state.view import Facts, Observation
from worker.engine.batch import Decider
from worker.engine.drift import log_drift
from worker.engine.intake import Item, fingerprint
from worker.engine.result import read_keys
from worker.ledger.drift import Drift, DriftFilter, drift
from worker.ledger.maintenance import Retention, keep_house
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger

pytestmark = pytest.mark.integration

ADDRESS = "test:///default"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = DriftFilter(resolved=True)
INVENTORY = Inventory(cpus="0-7", memory_mib=8192, disk_gib=10)


def command(kind: str, **fields: Any) -> Any:
    model: Any = MODELS[kind]
    return model(version=1, id=uuid4(), kind=kind, issued_at=NOW, node="cn-1", **fields)


def domain(number: int, *, vcpus: int = 2) -> Domain:
    return Domain(UUID(int=number), f"guest-{number}", active=True, vcpus=vcpus, memory_mib=512)


class Ledger:
    """A ledger on which batches are committed as a worker does it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._ledger = PostgresLedger(pool)

    async def commit(self, *commands: Any, domains: Iterable[Domain] = ()) -> None:
        facts = Facts(observations={"cn-1": Observation(NOW, ADDRESS, INVENTORY)}, listings={"cn-1": list(domains)})
        items = [Item(one, fingerprint(one)) for one in commands]
        want = read_keys(items, facts)
        async with self._ledger.transaction(locking=True) as transaction:
            loaded = await transaction.load(want)
            result = Decider(loaded, facts, 0.0, timedelta(days=1), lambda _: None).run(items)
            await transaction.write(loaded, result.changes)
        assert not result.inquiries
        log_drift(result.changes.drift)

    async def audit(self, *domains: Domain, **fields: Any) -> None:
        await self.commit(command("audit", **fields), domains=domains)

    async def drift(self, which: DriftFilter = DriftFilter()) -> list[Drift]:  # noqa: B008 - frozen
        async with self._pool.acquire() as connection:
            return await drift(connection, which)

    async def in_all(self) -> dict[str, int]:
        return await self._ledger.drift_in_all()


@pytest.fixture
async def pool(database: Database) -> Any:
    made = await connect_pool(database.worker_url, max_size=2)
    yield made
    await made.close()


@pytest.fixture
async def ledger(pool: asyncpg.Pool) -> Ledger:
    made = Ledger(pool)
    await made.commit(command("node.put", hypervisor=ADDRESS))
    return made


async def test_a_difference_is_on_record_since_when_it_began_until_it_is_over(ledger: Ledger) -> None:
    with capture_logs() as logs:
        await ledger.audit(domain(1), domain(2))
        first = await ledger.drift()
        assert [(one.instance, one.kind, one.resolved_at) for one in first] == [
            (UUID(int=1), "orphan", None),
            (UUID(int=2), "orphan", None),
        ]
        await ledger.audit(domain(2, vcpus=4))
        (kept,) = await ledger.drift()
        assert (kept.id, kept.first_seen) == (first[1].id, first[1].first_seen)
        assert kept.last_seen > first[1].last_seen
        assert kept.hypervisor == {"vcpus": 4, "memory_mib": 512}
        over, _ = await ledger.drift(EVERYTHING)
        assert over.resolved_at is not None
        await ledger.audit(domain(1), domain(2))
    assert [one.instance for one in await ledger.drift()] == [UUID(int=2), UUID(int=1)]
    assert (await ledger.drift())[1].id not in {one.id for one in first}, "what comes back is another one"
    told = [(line["event"], line["instance"].int) for line in logs if line["event"].startswith("drift")]
    assert told == [("drift began", 1), ("drift began", 2), ("drift ended", 1), ("drift began", 1)]


async def test_what_differs_now_is_counted_however_often_it_is_looked_at(ledger: Ledger) -> None:
    for _ in range(3):
        await ledger.audit(domain(1), domain(2))
    assert await ledger.in_all() == {"orphan": 2}
    await ledger.audit()
    assert await ledger.in_all() == {}


async def test_a_dry_run_leaves_no_record(ledger: Ledger) -> None:
    await ledger.audit(domain(1), dry_run=True)
    assert await ledger.drift(EVERYTHING) == []


async def test_the_last_of_several_audits_in_one_batch_counts(ledger: Ledger) -> None:
    await ledger.commit(command("audit"), command("audit"), domains=[domain(1)])
    assert len(await ledger.drift(EVERYTHING)) == 1


async def test_drift_goes_with_its_node(ledger: Ledger) -> None:
    await ledger.audit(domain(1))
    await ledger.commit(command("audit"), command("node.remove"), domains=[domain(1)])
    assert await ledger.drift(EVERYTHING) == []
    await ledger.commit(command("node.put", hypervisor=ADDRESS))
    assert await ledger.drift(EVERYTHING) == []


async def test_a_node_without_a_hypervisor_differs_from_none(ledger: Ledger) -> None:
    await ledger.audit(domain(1))
    inventory = {"cpus": "0-3", "memory_mib": 4096, "disk_gib": 10}
    await ledger.commit(command("node.put", inventory=inventory))
    assert await ledger.drift() == []
    assert len(await ledger.drift(EVERYTHING)) == 1


async def test_it_is_found_by_node_kind_and_instance(ledger: Ledger) -> None:
    await ledger.audit(domain(1), domain(2))
    assert len(await ledger.drift(DriftFilter(node="cn-1", kind="orphan"))) == 2
    assert [one.instance for one in await ledger.drift(DriftFilter(instance=UUID(int=2)))] == [UUID(int=2)]
    assert await ledger.drift(DriftFilter(node="cn-2")) == await ledger.drift(DriftFilter(kind="ghost")) == []


async def test_what_is_over_is_kept_for_its_time_and_what_is_there_for_good(ledger: Ledger, pool: asyncpg.Pool) -> None:
    kept = Retention(commands=None, tombstones=None, dead_letters=None, entries=None, drift=timedelta(days=30))
    await ledger.audit(domain(1), domain(2))
    await ledger.audit(domain(2))
    await keep_house(pool, kept)
    assert len(await ledger.drift(EVERYTHING)) == 2
    await pool.execute(
        "UPDATE nodeledger.drift"
        " SET first_seen = now() - interval '40 days', resolved_at = resolved_at - interval '31 days'"
    )
    assert (await keep_house(pool, kept)).drift == 1
    assert [one.instance for one in await ledger.drift(EVERYTHING)] == [UUID(int=2)]
