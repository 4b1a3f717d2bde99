"""A small ledger that agrees with itself, written without the worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from worker.ledger.maintenance import Retention

KEPT = Retention(
    commands=timedelta(days=30),
    tombstones=timedelta(days=90),
    dead_letters=timedelta(days=90),
    entries=None,
    drift=None,
)

EARLY = datetime(2025, 1, 10, tzinfo=UTC)
INSTANCES = tuple(UUID(int=number) for number in range(1, 7))
PINNED, SHARED, MOVING, DELETED, CROSSING, PARKED = INSTANCES

_SEED = """
INSERT INTO nodeledger.node (name, generation, counters, used, parked) VALUES
    ('cn-1', 9, '{vcpus,pcpus,memory_mib,cell/0/memory_mib,CUSTOM_LICENSE}', '{6,2,4096,1024,1}', 1),
    ('cn-2', 2, '{vcpus,memory_mib}', '{4,1024}', 0);
INSERT INTO nodeledger.node_profile (node_id, hypervisor, policy, inventory, capacity)
SELECT n.id, 'test:///default', '{"devices": [{"vendor": "8086"}, {"vendor": "10de"}]}',
    '{"cpus": "0-7", "memory_mib": 4096, "devices": [
        {"address": "0000:3b:00.0", "vendor": "10de", "product": "1db6"},
        {"address": "0000:5e:00.0", "vendor": "8086", "product": "158b", "type": "pf"},
        {"address": "0000:5e:02.0", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"},
        {"address": "0000:5e:02.1", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"}]}',
    '{"vcpus": {"total": 8, "reserved": 0, "capacity": 32}, "pcpus": {"total": 4, "reserved": 0, "capacity": 4},
      "memory_mib": {"total": 4096, "reserved": 512, "capacity": 3584}}'
FROM nodeledger.node AS n;
INSERT INTO nodeledger.instance (id, version, project, user_id, state, move, deleted_at) VALUES
    ($1, 1, 'blue', 'ann', 'active', NULL, NULL),
    ($2, 1, 'blue', 'bob', 'building', NULL, NULL),
    ($3, 2, 'red', 'eve', 'active', 'resize', NULL),
    ($4, 2, 'red', 'eve', NULL, NULL, '2025-02-01Z'),
    ($5, 2, 'red', 'eve', 'active', 'migrate', NULL);
INSERT INTO nodeledger.allocation
    (instance, node_id, role, request, full_charge, charge, pins, devices, assignment, claimed_at)
SELECT x.instance, n.id, x.role, '{}', x.full_charge::jsonb, x.charge::jsonb, x.pins::integer[], x.devices::text[],
    '{}', $7
FROM (VALUES
    ($1::uuid, 'cn-1', 'active', '{"pcpus": 2, "memory_mib": 1024, "cell/0/memory_mib": 1024, "CUSTOM_LICENSE": 1}',
        '{"pcpus": 2, "memory_mib": 1024, "cell/0/memory_mib": 1024, "CUSTOM_LICENSE": 1}', '{4,5}', '{0000:5e:02.0}'),
    ($2, 'cn-1', 'active', '{"vcpus": 1, "memory_mib": 1024}', '{"vcpus": 1, "memory_mib": 1024}', '{}',
        '{0000:99:00.0}'),
    ($3, 'cn-1', 'move_source', '{"vcpus": 2, "memory_mib": 1024}', '{"vcpus": 2, "memory_mib": 1024}', '{}', '{}'),
    ($3, 'cn-1', 'move_destination', '{"vcpus": 3, "memory_mib": 512}', '{"vcpus": 1, "memory_mib": 0}', '{}', '{}'),
    ($5, 'cn-1', 'move_source', '{"vcpus": 2, "memory_mib": 1024}', '{"vcpus": 2, "memory_mib": 1024}', '{}', '{}'),
    ($5, 'cn-2', 'move_destination', '{"vcpus": 4, "memory_mib": 1024}', '{"vcpus": 4, "memory_mib": 1024}', '{}', '{}')
) AS x (instance, node, role, full_charge, charge, pins, devices)
JOIN nodeledger.node AS n ON n.name = x.node;
INSERT INTO nodeledger.pinned_cpu SELECT n.id, c.cpu, $1 FROM nodeledger.node AS n, (VALUES (4), (5)) AS c (cpu)
WHERE n.name = 'cn-1';
INSERT INTO nodeledger.held_device
SELECT n.id, d.address, d.instance
FROM nodeledger.node AS n, (VALUES ('0000:5e:02.0', $1::uuid), ('0000:99:00.0', $2)) AS d (address, instance)
WHERE n.name = 'cn-1';
INSERT INTO nodeledger.entry
    (at, node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices)
SELECT $7::timestamptz + x.day * interval '1 day', x.node, x.instance, x.project, x.user_id, gen_random_uuid(), x.kind,
    x.counters::text[], x.deltas::bigint[], x.used_after::bigint[], x.pins::integer[], x.devices::text[]
FROM (VALUES
    (0, 'cn-1', $1::uuid, 'blue', 'ann', 'claim', '{pcpus,memory_mib,cell/0/memory_mib,CUSTOM_LICENSE}',
        '{2,1024,1024,1}', '{2,1024,1024,1}', '{4,5}', '{0000:5e:02.0}'),
    (1, 'cn-1', $4, 'red', 'eve', 'claim', '{vcpus,memory_mib}', '{4,64}', '{4,1088}', '{}', '{}'),
    (2, 'cn-1', $2, 'blue', 'bob', 'claim', '{vcpus,memory_mib}', '{1,1024}', '{5,2112}', '{}', '{0000:99:00.0}'),
    (20, 'cn-1', $4, 'red', 'eve', 'delete', '{vcpus,memory_mib}', '{-4,-64}', '{1,2048}', '{}', '{}'),
    (60, 'cn-1', $3, 'red', 'eve', 'claim', '{vcpus,memory_mib}', '{2,1024}', '{3,3072}', '{}', '{}'),
    (61, 'cn-1', $3, 'red', 'eve', 'resize', '{vcpus}', '{1}', '{4}', '{}', '{}'),
    (62, 'cn-1', $5, 'red', 'eve', 'claim', '{vcpus,memory_mib}', '{2,1024}', '{6,4096}', '{}', '{}'),
    (63, 'cn-2', $5, 'red', 'eve', 'migrate', '{vcpus,memory_mib}', '{4,1024}', '{4,1024}', '{}', '{}')
) AS x (day, node, instance, project, user_id, kind, counters, deltas, used_after, pins, devices);
INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, instance, received_at, at, codes, outcome) VALUES
    ($6, $6, 'claim', 'parked', 'cn-1', $6, $7, $7, '{hypervisor_unreachable}', '{"status": "parked"}'),
    ($1, $1, 'claim', 'applied', 'cn-1', $1, $7, $7, '{}', '{"status": "applied"}');
INSERT INTO nodeledger.parked_command (node, command, body, received_at, parked_at, blocking, detail)
VALUES ('cn-1', $6, '{}', $7, $7, true, '')
"""


async def seed(worker_url: str) -> None:
    """Two nodes; one instance pinned, one shared, one in a resize, one in a migration, one deleted, one waiting."""
    values = [f"'{identity}'::uuid" for identity in INSTANCES] + [f"'{EARLY.isoformat()}'::timestamptz"]
    text = _SEED
    for place, value in reversed(list(enumerate(values, 1))):
        text = text.replace(f"${place}", value)
    connection = await asyncpg.connect(worker_url)
    async with connection.transaction():
        await connection.execute(text)
    await connection.close()


def days(count: float) -> datetime:
    """So many days after the first entry."""
    return EARLY + timedelta(days=count)
