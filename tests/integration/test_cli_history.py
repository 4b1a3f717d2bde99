from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_harness import INSTANCES, SMALL, claim, put, shell, worker
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration

KEPT, GONE = INSTANCES[:2]
LARGE = {**SMALL, "vcpus": 4}


def resize(instance: str, **more: Any) -> dict[str, Any]:
    return {"kind": "resize", "node": "cn-1", "instance": instance, "resources": LARGE, "mode": "immediate", **more}


def delete(instance: str) -> dict[str, Any]:
    return {"kind": "delete", "node": "cn-1", "instance": instance}


async def test_the_past_of_a_node_an_instance_and_a_project_is_told_and_billed(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        sent = await operator.send(put("cn-1"), claim("cn-1", KEPT), claim("cn-1", GONE, project="other"))
        sent = await operator.send(resize(KEPT), delete(GONE))
        assert sent.status == 0, sent.err

    async def lines(*which: str) -> Any:
        return (await operator.run("history", *which, "--json")).document

    everything = await lines("--node", "cn-1")
    assert [line["kind"] for line in everything] == ["claim", "claim", "resize", "delete"]
    assert [line["kind"] for line in await lines("--instance", GONE)] == ["claim", "delete"]
    assert [line["instance"] for line in await lines("--project", "acme")] == [KEPT, KEPT]
    claimed, _, resized, deleted = (line["at"] for line in everything)
    assert [line["kind"] for line in await lines("--since", resized)] == ["resize", "delete"]

    then = (await operator.run("node", "show", "cn-1", "--at", everything[1]["at"], "--json")).document
    assert {instance: held["charge"]["vcpus"] for instance, held in then["holdings"].items()} == {KEPT: 2, GONE: 2}
    now = (await operator.run("node", "show", "cn-1", "--at", deleted, "--json")).document
    stored = (await operator.run("node", "show", "cn-1", "--json")).document
    assert now["used"] == stored["counters"]

    for node, moment in (("nobody", deleted), ("cn-1", "2001-01-01")):
        refused = await operator.run("node", "show", node, "--at", moment)
        assert (refused.status, "there was no node" in refused.err) == (1, True), refused.err
    assert len(await lines("--node", "cn-1", "--since", "1h")) == 4

    until = (datetime.fromisoformat(deleted) + timedelta(hours=1)).isoformat()
    bill = (await operator.run("usage", "--project", "acme", "--since", claimed, "--until", until, "--json")).document
    small = datetime.fromisoformat(resized) - datetime.fromisoformat(claimed)
    large = datetime.fromisoformat(until) - datetime.fromisoformat(resized)
    exact = (2 * small + 4 * large) // timedelta(microseconds=1)
    billed = {row["resource"]: Decimal(str(row["amount_seconds"])) for row in bill}
    assert billed["vcpus"] == Decimal(exact) / 1_000_000
    assert all(len(str(row["amount_hours"]).partition(".")[2]) <= 3 for row in bill)
