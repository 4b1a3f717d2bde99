from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.servers import Database
from worker.ledger.roles import WORKER_SETTINGS
from worker.ledger.statements import numbered, placeholders, sql

pytestmark = pytest.mark.integration

HOT_PATH = (
    "lock_nodes", "load_nodes", "members", "read", "record", "release", "settle", "park", "put_node",
    "put_profile", "remove_nodes", "attempts", "count_attempts", "parked", "due_probes", "due_leases", "published",
    "waiting_for", "addresses", "host_owners", "probe_again", "member_heartbeat", "member_leave", "dead_letter_store",
    "dead_letter_mark", "dead_letter_actions", "dead_letter_resolve", "load_drift", "record_drift",
    "record_load", "standings", "wake_probes",
)  # fmt: skip
SMALL = {"worker", "shard", "installation", "outbox", "probe", "dead_letter_open"}
"""With a row for each worker, shard, batch in flight, node out of reach or letter not dealt with: no harm."""


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from steps(inner)


def reads_all(step: dict[str, Any]) -> bool:
    kind = step["Node Type"]
    return kind == "Seq Scan" or ("Index" in kind and "Index Cond" not in step)


async def read_whole(connection: asyncpg.Connection, name: str) -> set[str]:
    """The tables and indexes that a statement reads from end to end, whatever its parameters are."""
    text = numbered(sql(name), {placeholder: n for n, placeholder in enumerate(placeholders(sql(name)), 1)})
    parameters = len((await connection.prepare(text)).get_parameters())
    await connection.execute(f"PREPARE {name} AS {text}")
    nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}{nulls}"))
    found = [step for step in steps(plan[0]["Plan"]) if reads_all(step)]
    return {step.get("Relation Name") or step["Index Name"] for step in found}


async def test_even_plans_made_while_the_tables_are_empty_never_read_a_table_that_grows_from_end_to_end(
    database: Database,
) -> None:
    connection = await asyncpg.connect(database.worker_url, server_settings=WORKER_SETTINGS)
    found = {name: await read_whole(connection, name) - SMALL for name in HOT_PATH}
    await connection.close()
    assert {name: tables for name, tables in found.items() if tables} == {}
