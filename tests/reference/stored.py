"""The state that is stored in Postgres, on plain values."""

from __future__ import annotations

from uuid import UUID

import asyncpg
from pydantic_core import from_json

from tests.reference.inspection import Snapshot


async def read_snapshot(owner: asyncpg.Connection) -> Snapshot:
    found = Snapshot()
    for row in await owner.fetch("SELECT * FROM nodeledger.node"):
        found.nodes[row["name"]] = {
            "used": {name: n for name, n in zip(row["counters"], row["used"], strict=True) if n},
            "failed_builds": row["failed_builds"],
            "parked": row["parked"],
            "pinned": {},
            "held": {},
        }
    await _add_holders(owner, found)
    await _add_instances(owner, found)
    for row in await owner.fetch("SELECT * FROM nodeledger.entry ORDER BY seq"):
        found.entries.append({**row, "instance": str(row["instance"])})
    for row in await owner.fetch("SELECT command, blocking FROM nodeledger.parked_command"):
        found.parked[str(row["command"])] = row["blocking"]
    return found


async def _add_holders(owner: asyncpg.Connection, found: Snapshot) -> None:
    for key, column, table in (("pinned", "cpu", "pinned_cpu"), ("held", "address", "held_device")):
        query = f"SELECT n.name, {column}, instance FROM nodeledger.{table} JOIN nodeledger.node AS n ON n.id = node_id"
        for node, what, holder in await owner.fetch(query):
            found.nodes[node][key][what] = str(holder)


async def _add_instances(owner: asyncpg.Connection, found: Snapshot) -> None:
    for row in await owner.fetch("SELECT * FROM nodeledger.instance"):
        found.instances[str(row["id"])] = {**row, "deleted": row["deleted_at"] is not None, "holds": {}}
    held = "SELECT n.name, a.* FROM nodeledger.allocation AS a LEFT JOIN nodeledger.node AS n ON n.id = a.node_id"
    for row in await owner.fetch(held):
        found.instances[str(UUID(int=row["instance"].int))]["holds"][row["name"], row["role"]] = {
            "charge": from_json(row["full_charge"]),
            "pins": set(row["pins"]),
            "devices": set(row["devices"]),
            "lease": row["lease_expires_at"],
        }
