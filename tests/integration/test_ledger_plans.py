from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.servers import Database
from worker.ledger.statements import statement

pytestmark = pytest.mark.integration

ROAD = (
    "lock_nodes", "load_nodes", "members", "read", "record", "release", "take", "settle", "park", "put_node",
    "put_profile", "remove_nodes", "tries", "count_tries", "parked", "due_probes", "due_leases", "published",
    "addresses", "probe_again", "member_heartbeat", "member_leave", "dead_letter_store", "dead_letter_mark",
    "dead_letter_actions", "dead_letter_resolve",
)  # fmt: skip
SMALL = {"worker", "shard", "installation", "outbox", "probe"}
"""Tables with a row for each worker, shard, batch in flight or node out of reach: reading them whole is no harm."""

FILL = """
INSERT INTO nodeledger.node (name, generation) SELECT 'cn-' || k, 1 FROM generate_series(1, 5000) AS k;
INSERT INTO nodeledger.node_profile (node_id, hypervisor, policy)
SELECT n.id, 'test:///default', '{}' FROM nodeledger.node AS n;
CREATE TEMPORARY TABLE made AS
SELECT gen_random_uuid() AS id, 'cn-' || k % 5000 + 1 AS node, k % 5000 + 1 AS node_id, k AS place
FROM generate_series(1, 20000) AS k;
INSERT INTO nodeledger.instance (id, version) SELECT m.id, 1 FROM made AS m;
INSERT INTO nodeledger.allocation (instance, node_id, role, request, full_charge, charge, assignment, claimed_at)
SELECT m.id, m.node_id, 'active', '{}', '{}', '{}', '{}', now() FROM made AS m;
INSERT INTO nodeledger.pinned_cpu SELECT m.node_id, m.place, m.id FROM made AS m;
INSERT INTO nodeledger.held_device SELECT m.node_id, m.place::text, m.id FROM made AS m;
INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, received_at, at, outcome)
SELECT m.id, m.id, 'claim', 'applied', m.node, now(), now(), '' FROM made AS m;
INSERT INTO nodeledger.parked_command (node, command, body, received_at, parked_at, blocking, detail)
SELECT m.node, m.id, '', now(), now(), true, '' FROM made AS m;
INSERT INTO nodeledger.attempt (command, tries, at) SELECT m.id, 1, now() FROM made AS m;
INSERT INTO nodeledger.dead_letter (digest, reason, detail, fingerprint, command, body, first_seen, last_seen, state)
SELECT m.id, 'poison', '', '', m.id, '', now(), now(), 'resolved' FROM made AS m;
INSERT INTO nodeledger.dead_letter_action (letter, actor, action)
SELECT d.id, 'x', 'x' FROM nodeledger.dead_letter AS d;
ANALYZE;
"""


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from steps(inner)


async def scanned(connection: asyncpg.Connection, name: str) -> set[str]:
    """The tables that a statement reads from end to end, whatever its parameters are."""
    parameters = len((await connection.prepare(statement(name))).get_parameters())
    await connection.execute(f"PREPARE {name} AS {statement(name)}")
    nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}{nulls}"))
    return {step["Relation Name"] for step in steps(plan[0]["Plan"]) if step["Node Type"] == "Seq Scan"}


async def test_no_statement_on_the_road_reads_a_table_that_grows_from_end_to_end(database: Database) -> None:
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute(FILL)
    await owner.close()
    connection = await asyncpg.connect(database.worker_url)
    await connection.execute("SET plan_cache_mode = force_generic_plan; SET random_page_cost = 1.1")
    found = {name: await scanned(connection, name) - SMALL for name in ROAD}
    await connection.close()
    assert {name: tables for name, tables in found.items() if tables} == {}
