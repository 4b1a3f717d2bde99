from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli_harness import INSTANCES, SMALL, claim, put, shell, worker
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration


async def test_as_many_claims_are_applied_as_were_said_to_fit(database: Database, vhost: Vhost, tmp_path: Path) -> None:
    operator = shell(database, vhost)
    wish = json.dumps({"resources": SMALL})
    async with worker(operator, tmp_path):
        disabled = put("cn-3", policy={"enabled": False})
        assert (await operator.send(put("cn-1"), put("cn-2"), disabled, claim("cn-1", INSTANCES[0]))).status == 0
        told = await operator.run("fit", "-", "--json", text=wish)
        assert told.status == 0, told.err
        times = {one["node"]: one["times"] for one in told.document}
        assert times == {"cn-2": 10, "cn-1": 9, "cn-3": 0}
        assert [why["code"] for why in told.document[-1]["reasons"]] == ["node_disabled"]
        assert {why["resource"] for why in told.document[0]["reasons"]} == {"disk_mib"}

        filled = await operator.send(*(claim("cn-1", one) for one in INSTANCES[1:11]))
        assert [line["status"] for line in filled.lines] == ["applied"] * 9 + ["rejected"]
        none = await operator.run("fit", "-", text=json.dumps({"node": "cn-1", "resources": SMALL}))
        assert (none.status, "too few" in none.out) == (1, True)

        named = await operator.run("fit", "-", "--json", "--times", "2", text=json.dumps(claim("cn-2", INSTANCES[50])))
        assert [(one["node"], one["times"], one["counted_out"]) for one in named.document] == [("cn-2", 2, True)]
        unknown = await operator.run("fit", "-", "--json", text=json.dumps({"node": "cn-9", "resources": SMALL}))
        assert unknown.document[0]["reasons"][0]["code"] == "node_unknown"


async def test_what_is_no_claim_for_one_instance_is_refused_before_anything_is_read() -> None:
    several = {"node": "cn-1", "instances": [{"instance": INSTANCES[0], "node": "cn-1", "resources": SMALL}]}
    for text in ("", "[]", '{"resources": {"vcpus": 0}}', '{"kind": "delete"}', json.dumps(several)):
        ended = await shell().run("fit", "-", text=text)
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1), text
