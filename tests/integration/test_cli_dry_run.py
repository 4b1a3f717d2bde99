from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import asyncpg
import pytest

from schemas import COMMAND_EXCHANGE, command_key, shard_of
from tests.integration.cli_harness import INSTANCES, Shell, claim, put, shell, worker
from tests.integration.test_cli_dead import letters, stamped
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration

ROOMY_FOR_ONE = {"cpus": "0-7", "memory_mib": 16384, "disk_gib": 15}


@pytest.fixture
async def operator(database: Database, vhost: Vhost, tmp_path: Path) -> AsyncIterator[Shell]:
    made = shell(database, vhost)
    policy = {"max_inventory_age_seconds": 0, "ratios": {"disk": "16.0"}}
    observed = {"kind": "node.put", "node": "lv-1", "hypervisor": "test:///default", "policy": policy}
    async with worker(made, tmp_path):
        sent = await made.send(put("cn-1", inventory=ROOMY_FOR_ONE), put("cn-2"), observed)
        assert sent.status == 0, sent.err
        assert (await made.send(claim("lv-1", INSTANCES[20]))).lines
        yield made


async def dead_letter(vhost: Vhost, operator: Shell, *commands: dict[str, Any]) -> list[dict[str, Any]]:
    """Put commands into the dead letters by sending them to a shard that is not their nodes'."""
    async with await aio_pika.connect(vhost.url) as connection:
        exchange = await (await connection.channel()).get_exchange(COMMAND_EXCHANGE)
        for command in commands:
            astray = command_key((shard_of(command["node"]) + 1) % 16)
            await exchange.publish(aio_pika.Message(json.dumps(command).encode()), astray)
    return await letters(operator, len(commands))


async def state_of(operator: Shell) -> list[tuple[Any, ...]]:
    """Everything a decision could have changed."""
    connection = await asyncpg.connect(operator.environment["NODELEDGER_DATABASE_URL"])
    tables = ("node", "instance", "allocation", "entry", "command", "parked_command", "dead_letter_action")
    rows = [tuple(row) for name in tables for row in await connection.fetch(f"SELECT * FROM nodeledger.{name}")]
    await connection.close()
    return rows


async def test_a_dry_run_previews_each_outcome_in_turn_changes_nothing_and_comes_true(
    operator: Shell, vhost: Vhost
) -> None:
    gone = {"kind": "delete", "node": "cn-1", "instance": INSTANCES[0]}
    commands = [
        stamped(one)
        for one in (
            claim("cn-1", INSTANCES[0]),
            claim("cn-1", INSTANCES[1]),
            gone,
            claim("cn-1", INSTANCES[2]),
            claim("cn-1", INSTANCES[0]),
            claim("cn-9", INSTANCES[3]),
            {**claim("cn-2", INSTANCES[4]), "expires_at": "2026-01-02T00:00:00Z"},
            claim("lv-1", INSTANCES[5]),
        )
    ]
    await dead_letter(vhost, operator, *commands)
    before = await state_of(operator)
    told = await operator.run("dead", "replay", "--all", "--dry-run", "--json")
    assert await state_of(operator) == before
    texts = [one["text"] for one in told.document]
    assert texts[0] == "would be applied on cn-1"
    assert texts[1].startswith("would be rejected: 10240 disk_mib requested"), "it sees what the first would take"
    assert texts[2] == "would be applied on cn-1"
    assert texts[3] == "would be applied on cn-1", "it sees what the deletion would give back"
    assert "was deleted" in texts[4]
    assert texts[5] == "would be rejected: node cn-9 is not registered"
    assert "expired" in texts[6]
    assert texts[7].startswith("would ask the hypervisor of lv-1 first; if it says what it said last: would be ")

    assert (await operator.run("dead", "replay", "--all")).status == 0
    answered = await operator.run("send", "--wait", text="".join(f"{json.dumps(one)}\n" for one in commands))
    came = {line["command"]: line["status"] for line in answered.lines}
    assert all(came[command["id"]] in text for command, text in zip(commands, texts, strict=True)), (came, texts)


async def test_an_edited_letter_is_sent_once_however_often_it_is_edited_alike(operator: Shell, vhost: Vhost) -> None:
    [letter] = await dead_letter(vhost, operator, stamped(claim("cn-9", INSTANCES[0])))
    number = str(letter["id"])
    shown = await operator.run("dead", "edit", number, "--set", "node=cn-2", "--dry-run", "--json")
    assert shown.document["what_it_would_do"] == "would be applied on cn-2"

    edit = ("dead", "edit", number, "--set", "node=cn-2", "--set", "resources.vcpus=3")
    sent = await operator.run(*edit, "--actor", "ann", "--json")
    assert sent.status == 0, sent.err
    assert sent.document["command"] != shown.document["command"]["id"]
    settled = (await operator.run("dead", "show", number, "--json")).document
    assert settled["state"] == "resolved"
    assert [(one["actor"], one["action"], one["detail"]) for one in settled["actions"]] == [
        ("ann", "edited", f"sent as {sent.document['command']}")
    ]
    assert (await operator.run(*edit)).status == 1, "it is settled"

    connection = await asyncpg.connect(operator.environment["NODELEDGER_DATABASE_URL"])
    await connection.execute("UPDATE nodeledger.dead_letter SET state = 'open'")  # as if it had not been written down
    await connection.close()
    again = await operator.run(*edit, "--json")
    assert again.document["command"] == sent.document["command"]
    after = await operator.send(claim("cn-2", INSTANCES[1]))
    assert after.lines[0]["usage"]["vcpus"]["used"] == 5, "the edited claim of three was applied once"


async def test_an_edit_that_makes_no_command_is_refused_and_leaves_the_letter(operator: Shell, vhost: Vhost) -> None:
    [letter] = await dead_letter(vhost, operator, stamped(claim("cn-2", INSTANCES[0])))
    number = str(letter["id"])
    faults = (["--set", "resources.vcpus=0"], ["--set", f"id={uuid4()}"], ["--unset", "nothing.here"], ["--set", "x"])
    for fault in faults:
        ended = await operator.run("dead", "edit", number, *fault)
        assert (ended.status in {1, 2}, ended.out, ended.err.count("\n")) == (True, "", 1), ended
    assert (await operator.run("dead", "edit", number)).status == 2
    whole = json.dumps(claim("cn-2", INSTANCES[7]))
    assert (await operator.run("dead", "edit", number, "--file", "-", text=whole)).status == 0
    held = await operator.send(claim("cn-2", INSTANCES[8]))
    assert held.lines[0]["usage"]["vcpus"]["used"] == 4
