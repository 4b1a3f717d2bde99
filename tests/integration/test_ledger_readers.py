from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import asyncpg
import pytest

from tests.integration.ledger_seed import CROSSING, DELETED, MOVING, PARKED, PINNED, SHARED, days, seed
from tests.servers import Database
from worker.ledger import readers
from worker.ledger.history import HistoryFilter, history, node_at, use_over_time
from worker.ledger.readers import ResourceUsage, Statistic

pytestmark = pytest.mark.integration


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[asyncpg.Connection]:
    await seed(database.worker_url)
    connection = await asyncpg.connect(database.reader_url)
    yield connection
    await connection.close()


async def test_a_nodes_usage_names_what_it_has_and_what_it_only_uses(reader: asyncpg.Connection) -> None:
    (first, _) = await readers.nodes(reader)
    assert (first.node, first.instances, first.enabled, first.reachable) == ("cn-1", 4, True, None)
    assert first.usage == {
        "vcpus": ResourceUsage(8, 0, 32, 6, 26),
        "pcpus": ResourceUsage(4, 0, 4, 2, 2),
        "memory_mib": ResourceUsage(4096, 512, 3584, 4096, -512),
        "CUSTOM_LICENSE": ResourceUsage(0, 0, 0, 1, -1),
    }


async def test_nodes_come_in_pages_without_gaps(reader: asyncpg.Connection) -> None:
    assert [node.node for node in await readers.nodes(reader, limit=1)] == ["cn-1"]
    assert [node.node for node in await readers.nodes(reader, after="cn-1")] == ["cn-2"]
    assert [node.node for node in await readers.nodes(reader, names=["cn-2", "cn-9"])] == ["cn-2"]


async def test_use_is_the_sum_over_allocations_over_projects_and_over_the_fleet(reader: asyncpg.Connection) -> None:
    fleet = {resource: usage.used for resource, usage in (await readers.fleet_usage(reader)).items() if usage.used}
    projects: dict[str, int] = {}
    for usage in await readers.project_usage(reader):
        projects[usage.resource] = projects.get(usage.resource, 0) + usage.used
    allocations = await readers.allocations(reader)
    assert fleet == {resource: used for resource, used in projects.items() if used}
    assert sum(allocation.vcpus for allocation in allocations) == fleet["vcpus"]
    assert sum(allocation.custom.get("CUSTOM_LICENSE", 0) for allocation in allocations) == fleet["CUSTOM_LICENSE"]


async def test_a_devices_state_tells_why_it_can_or_cannot_be_had(reader: asyncpg.Connection) -> None:
    detail = await readers.node(reader, "cn-1")
    assert detail is not None
    assert {device.address: (device.type, device.state, device.instance) for device in detail.devices} == {
        "0000:3b:00.0": ("pci", "available", None),
        "0000:5e:00.0": ("pf", "hidden", None),
        "0000:5e:02.0": ("vf", "held", PINNED),
        "0000:5e:02.1": ("vf", "available", None),
        "0000:99:00.0": (None, "gone", SHARED),
    }
    assert [(pinned.cpu, pinned.instance) for pinned in detail.pinned_cpus] == [(4, PINNED), (5, PINNED)]
    assert detail.counters["cell/0/memory_mib"] == 1024
    assert [(pool.type, pool.total, pool.free) for pool in detail.pools] == [("pci", 1, 1), ("pf", 1, 0), ("vf", 2, 1)]
    assert ("device", "0000:99:00.0", SHARED) in [(stray.kind, stray.name, stray.holder) for stray in detail.strays]


async def test_virtual_functions_hide_with_their_physical_function_and_parents_of_mediated_devices_are_shared(
    reader: asyncpg.Connection, database: Database
) -> None:
    worker = await asyncpg.connect(database.worker_url)
    await worker.execute("UPDATE nodeledger.held_device SET address = '0000:5e:00.0' WHERE address = '0000:5e:02.0'")
    await worker.execute(
        "UPDATE nodeledger.node SET counters = counters || '{mdev/0000:3b:00.0/nvidia-222}', used = used || '{2}'"
        " WHERE name = 'cn-1'"
    )
    await worker.close()
    rows = await reader.fetch("SELECT address, state FROM nodeledger.device_view WHERE node = 'cn-1'")
    assert {row["address"]: row["state"] for row in rows} == {
        "0000:3b:00.0": "shared",
        "0000:5e:00.0": "held",
        "0000:5e:02.0": "hidden",
        "0000:5e:02.1": "hidden",
        "0000:99:00.0": "gone",
    }


async def test_a_node_counts_its_instances_by_what_they_are(reader: asyncpg.Connection) -> None:
    detail = await readers.node(reader, "cn-1")
    assert detail is not None
    assert {
        Statistic("instances", None, 4),
        Statistic("state", "active", 3),
        Statistic("state", "building", 1),
        Statistic("project", "blue", 2),
        Statistic("project", "red", 2),
        Statistic("io_workload", "busy", 1),
        Statistic("failed_builds", None, 0),
    } <= set(detail.statistics)


async def test_an_instance_is_known_with_all_it_holds_and_as_a_tombstone(reader: asyncpg.Connection) -> None:
    moving = await readers.instance(reader, CROSSING)
    deleted = await readers.instance(reader, DELETED)
    assert moving is not None
    assert deleted is not None
    assert [(held.node, held.role) for held in moving.allocations] == [
        ("cn-1", "move_source"),
        ("cn-2", "move_destination"),
    ]
    assert deleted.deleted_at is not None
    assert deleted.allocations == []
    assert await readers.instance(reader, uuid4()) is None


async def test_an_outcome_stays_readable_and_a_waiting_command_too(reader: asyncpg.Connection) -> None:
    applied = await readers.outcome(reader, PINNED)
    assert applied is not None
    assert (applied.status, applied.outcome) == ("applied", {"status": "applied"})
    assert [waiting.command for waiting in await readers.parked(reader, node="cn-1")] == [PARKED]
    assert await readers.outcome(reader, uuid4()) is None


async def test_history_is_found_by_node_instance_project_and_time_and_comes_in_pages(
    reader: asyncpg.Connection,
) -> None:
    assert [line.kind for line in await history(reader, HistoryFilter(instance=CROSSING))] == ["migrate", "claim"]
    assert len(await history(reader, HistoryFilter(project="blue"))) == 2
    assert len(await history(reader, HistoryFilter(node="cn-1", since=days(1), until=days(20)))) == 2
    newest = await history(reader, HistoryFilter(node="cn-1"), limit=3)
    rest = await history(reader, HistoryFilter(node="cn-1"), before=newest[-1].seq)
    assert [line.seq for line in newest + rest] == sorted((line.seq for line in newest + rest), reverse=True)
    assert len(newest + rest) == 7


async def test_a_node_is_rebuilt_as_it_was_at_any_moment(reader: asyncpg.Connection) -> None:
    then = await node_at(reader, "cn-1", days(10))
    assert then is not None
    assert set(then.holdings) == {PINNED, SHARED, DELETED}
    assert then.used == {"pcpus": 2, "memory_mib": 2112, "cell/0/memory_mib": 1024, "CUSTOM_LICENSE": 1, "vcpus": 5}
    assert list(then.holdings[PINNED].pins) == [4, 5]
    now = await node_at(reader, "cn-1", days(1000))
    stored = await readers.node(reader, "cn-1")
    assert stored is not None
    assert now is not None
    assert now.used == stored.counters
    assert await node_at(reader, "cn-1", days(-1)) is None, "there was no such node yet"


async def test_use_over_time_is_exact_to_the_microsecond(reader: asyncpg.Connection) -> None:
    hour = timedelta(hours=1)
    used = await use_over_time(reader, "red", days(61) - hour, days(61) + hour + timedelta(microseconds=1))
    assert used["vcpus"] == 2 * 3600 + 3 * (3600 + Decimal("0.000001"))
    assert await use_over_time(reader, "red", days(25), days(26)) == {"vcpus": 0, "memory_mib": 0}
    assert await use_over_time(reader, "red", days(61), days(62), user="ann") == {}
    assert (await readers.instance(reader, MOVING)) is not None
