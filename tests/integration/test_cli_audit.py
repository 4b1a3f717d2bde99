from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.cli_harness import INSTANCES, claim, put, shell, worker
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration

ORPHAN = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The domain that runs on every `test:///default`."""


def observed(node: str) -> dict[str, Any]:
    return {"kind": "node.put", "node": node, "hypervisor": "test:///default"}


async def test_an_audit_names_what_differs_and_repair_charges_what_runs_unclaimed(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        assert (await operator.send(observed("lv-1"), claim("lv-1", INSTANCES[0]), put("cn-1"))).status == 0
        told = await operator.run("audit", "lv-1")
        assert (told.status, "orphan" in told.out, "ghost" in told.out) == (1, True, True), told.err
        assert (await operator.run("instance", "show", ORPHAN)).status == 1, "an audit without repair changes nothing"

        every = await operator.run("audit", "--all", "--repair", "--json")
        assert [(one["node"], one["status"]) for one in every.document] == [("lv-1", "applied")]
        found = {one["kind"]: one["instance"] for one in every.document[0]["drift"]}
        assert found == {"orphan": ORPHAN, "ghost": INSTANCES[0]}
        held = (await operator.run("instance", "show", ORPHAN, "--json")).document["allocations"]
        assert [one["role"] for one in held] == ["orphan"]


async def test_a_node_that_cannot_be_compared_is_a_finding(database: Database, vhost: Vhost, tmp_path: Path) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        await operator.send(put("cn-1"))
        told = await operator.run("audit", "cn-1", "cn-9")
        assert (told.status, told.out.strip().count("\n")) == (1, 0)
        assert "cn-1 was not compared" in told.err
        assert "cn-9 was not compared" in told.err
        assert (await operator.run("audit")).status == 2
        assert (await operator.run("audit", "cn-1", "--all")).status == 2
    silent = await operator.run("audit", "cn-1", "--timeout", "0.2", "--json")
    assert (silent.status, silent.document[0]["status"]) == (1, None)


async def test_drift_is_listed_by_the_command_line_and_the_read_api_until_it_is_over(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path) as address, aiohttp.ClientSession(address) as site:
        assert (await operator.send(observed("lv-1"), claim("lv-1", INSTANCES[0]))).status == 0
        await operator.run("audit", "lv-1")
        listed = (await operator.run("drift", "--json")).document
        assert {one["kind"]: one["instance"] for one in listed} == {"orphan": ORPHAN, "ghost": INSTANCES[0]}
        assert "orphan" not in (await operator.run("drift", "--node", "lv-1", "--kind", "ghost")).out
        async with site.get("/v1/drift?limit=1") as answer:
            page = await answer.json()
        async with site.get(f"/v1/drift?after={page['next']}&node=lv-1") as answer:
            rest = await answer.json()
        assert [*page["drift"], *rest["drift"]] == listed
        async with site.get("/v1/drift?resolved=perhaps") as answer:
            assert answer.status == 400
        await operator.send({"kind": "delete", "node": "lv-1", "instance": INSTANCES[0]})
        await operator.run("audit", "lv-1")
        assert [one["kind"] for one in (await operator.run("drift", "--json")).document] == ["orphan"]
        over = (await operator.run("drift", "--instance", INSTANCES[0], "--resolved", "--json")).document
        assert [one["resolved_at"] is None for one in over] == [False]
