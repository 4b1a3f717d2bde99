from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import aio_pika
import asyncpg
import pytest

from deploy.lib.stack import Stack
from schemas import command_queue, shard_of
from tests.client_contract import SILENT
from tests.integration.cli_harness import INSTANCES, as_lines, claim, put, shell, worker
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration


async def test_an_empty_installation_is_told_what_it_lacks_and_made_complete_step_by_step(
    empty_database: Database, vhost: Vhost
) -> None:
    operator = shell(empty_database, vhost)
    examined = await operator.run("doctor", "--json")
    assert examined.status == 1
    assert any("nodeledger db upgrade" in str(one) for one in examined.document)
    assert any("nodeledger topology apply" in str(one) for one in examined.document)

    assert (await operator.run("db", "check")).status == 1
    assert (await operator.run("db", "upgrade", "--json")).document["applied"]
    assert (await operator.run("db", "upgrade", "--json")).document == {"applied": []}
    assert (await operator.run("db", "check", "--json")).document == {"ok": True, "problems": []}

    missing = await operator.run("topology", "check", "--json")
    assert (missing.status, missing.document["ok"]) == (1, False)
    assert (await operator.run("topology", "apply")).status == 0
    assert (await operator.run("topology", "check", "--json")).document == {"ok": True, "findings": []}

    examined = await operator.run("doctor", "--json")
    assert (examined.status, {one["health"] for one in examined.document}) == (0, {"good", "warning"})


async def test_each_command_is_answered_with_one_line_and_a_rejection_shows_in_the_status(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        good = await operator.send(put("cn-1"), claim("cn-1", INSTANCES[0]))
        assert good.status == 0, good.err
        assert [(line["kind"], line["status"]) for line in good.lines] == [
            ("node.put", "applied"),
            ("claim", "applied"),
        ]

        too_much = {"vcpus": 64, "memory_mib": 999_999, "disk": {"root_gib": 999}}
        bad = await operator.send(claim("cn-1", INSTANCES[1], resources=too_much))
        assert bad.status == 1
        assert [reason["resource"] for reason in bad.lines[0]["reasons"]] == ["vcpus", "memory_mib", "disk_mib"]


async def test_a_wrong_line_is_named_and_the_others_are_sent(database: Database, vhost: Vhost, tmp_path: Path) -> None:
    operator = shell(database, vhost)
    text = f"nonsense\n\n{as_lines([put('cn-1')])}{as_lines([put('cn-2', policy={'enabled': 'yes'})])}"
    async with worker(operator, tmp_path):
        sent = await operator.run("send", "--wait", text=text)
    assert sent.status == 1
    assert [line["node"] for line in sent.lines] == ["cn-1"]
    assert [line.split(":")[0] for line in sent.err.splitlines()[:2]] == ["line 1", "line 4"]
    assert "policy.enabled" in sent.err


async def test_an_id_that_is_sent_twice_is_answered_once(database: Database, vhost: Vhost, tmp_path: Path) -> None:
    operator = shell(database, vhost)
    command = claim("cn-1", INSTANCES[0], id=str(uuid4()))
    async with worker(operator, tmp_path):
        sent = await operator.send(put("cn-1"), command, command, command)
        assert (sent.status, len(sent.lines)) == (0, 2), sent.err
        again = await operator.send(command)
        assert again.lines == sent.lines[1:], "the stored outcome, word for word"


async def test_no_answer_within_the_timeout_is_a_failure(database: Database, vhost: Vhost) -> None:
    operator = shell(database, vhost)
    lost = await operator.run("send", text=as_lines([put("cn-1")]))
    assert lost.status == 1
    assert "nodeledger topology" in lost.err, "nothing takes the command, and that is said"
    await operator.run("topology", "apply")
    late = await operator.run("send", "--wait", "--timeout", "0.2", text=as_lines([put("cn-1")]))
    assert (late.status, late.out) == (1, "")
    assert "no final outcome" in late.err


async def test_what_was_claimed_is_read_back_as_tables_and_as_json(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        await operator.send(put("cn-1"), put("cn-2"), claim("cn-1", INSTANCES[0]), claim("cn-2", INSTANCES[1]))
    reads: list[tuple[str, ...]] = [
        ("node", "list"),
        ("node", "show", "cn-1"),
        ("instance", "show", INSTANCES[0]),
        ("usage",),
        ("usage", "--projects"),
        ("history",),
    ]
    tables = await asyncio.gather(*(operator.run(*arguments) for arguments in reads))
    documents = await asyncio.gather(*(operator.run(*arguments, "--json") for arguments in reads))
    assert {ended.status for ended in tables + documents} == {0}
    assert all(ended.out.isascii() and "\x1b" not in ended.out for ended in tables), "no boxes and colours in a pipe"
    nodes, node, instance, usage, projects, history = (ended.document for ended in documents)
    assert [found["node"] for found in nodes] == ["cn-1", "cn-2"]
    assert node["allocations"] == instance["allocations"]
    assert {use["resource"]: use["used"] for use in usage}["memory_mib"] == 2048
    assert {use["resource"]: use["used"] for use in projects}["disk_mib"] == 20480
    assert [line["seq"] for line in history] == sorted(line["seq"] for line in history)
    assert (await operator.run("node", "show", "cn-9")).status == 1
    assert (await operator.run("instance", "show", INSTANCES[9])).status == 1


async def test_commands_are_published_in_the_order_of_their_lines(database: Database, vhost: Vhost) -> None:
    operator = shell(database, vhost)
    await operator.run("topology", "apply")
    text = as_lines([claim("cn-1", instance, revision=place) for place, instance in enumerate(INSTANCES * 15)])
    assert (await operator.run("send", text=text)).status == 0
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        queue = await (await connection.channel()).get_queue(command_queue(shard_of("cn-1")))
        async with asyncio.timeout(30), queue.iterator(no_ack=True) as messages:
            found = [json.loads((await anext(messages)).body)["revision"] for _ in range(len(INSTANCES) * 15)]
    assert found == list(range(len(INSTANCES) * 15))


async def test_a_connection_that_is_lost_while_outcomes_are_awaited_is_made_again(
    stack: Stack, database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    await operator.run("topology", "apply")
    waiting = asyncio.create_task(operator.run("send", "--wait", "--timeout", "50", text=as_lines([put("cn-1")])))
    connection = await aio_pika.connect(vhost.url)
    async with connection, asyncio.timeout(30):
        channel = await connection.channel()
        arrived = 0
        while not arrived:
            queue = await channel.declare_queue(command_queue(shard_of("cn-1")), passive=True)
            arrived = queue.declaration_result.message_count or 0
    stack.rabbitmq.control("close_all_connections", "--vhost", vhost.name, "test")
    async with worker(operator, tmp_path):
        ended = await waiting
    assert (ended.status, [line["status"] for line in ended.lines]) == (0, ["applied"]), ended.err


async def test_what_is_parked_and_what_is_dead_is_counted_for_itself(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost).having(hypervisor_allowed=SILENT)
    id_ = str(uuid4())
    first, reused = claim("cn-1", INSTANCES[0], id=id_), claim("cn-1", INSTANCES[1], id=id_)
    silent = {"kind": "node.put", "node": "cn-9", "hypervisor": SILENT}
    async with worker(operator, tmp_path):
        assert (await operator.send(put("cn-1"), silent, first)).status == 0
        text = as_lines([claim("cn-1", INSTANCES[2]), claim("cn-9", INSTANCES[3]), reused])
        sent = await operator.run("send", "--wait", "--timeout", "5", text=text)
    assert (sent.status, len(sent.lines)) == (1, 1)
    assert "1 applied, 0 rejected, 1 dead, 1 parked, 0 without an answer" in sent.err


async def test_the_doctor_names_the_node_whose_hypervisor_may_not_be_asked(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        await operator.send({"kind": "node.put", "node": "lv-1", "hypervisor": "test:///default"}, put("cn-1"))
    good = await operator.run("doctor", "--json")
    assert [one["found"] for one in good.document if one["subject"] == "hypervisors"] == ["1 of 1 answer"]
    bad = await operator.having(hypervisor_allowed="qemu:///system").run("doctor", "--json")
    assert bad.status == 1
    assert [one["subject"] for one in bad.document if one["health"] == "bad"] == ["node lv-1"]


async def test_verify_agrees_with_the_work_and_finds_a_total_that_was_changed_by_hand(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator, tmp_path):
        await operator.send(put("cn-1"), claim("cn-1", INSTANCES[0]))
    assert (await operator.run("verify", "--json")).document == {"ok": True, "differences": []}
    connection = await asyncpg.connect(database.superuser_url)
    await connection.execute("UPDATE nodeledger.node SET used[1] = used[1] + 1")
    await connection.close()
    found = await operator.run("verify")
    assert found.status == 1
    assert "cn-1" in found.out
    assert not (await operator.run("verify", "--json")).document["ok"]


async def test_a_server_that_is_away_is_named_in_one_line_without_its_password() -> None:
    address = "://eve:very-secret@127.0.0.1:1/x"
    operator = shell().having(database_url=f"postgresql{address}", amqp_url=f"amqp{address}")
    commands = [("node", "list"), ("verify",), ("topology", "check"), ("send",), ("dead", "list")]
    for ended in await asyncio.gather(*(operator.run(*arguments) for arguments in commands)):
        assert (ended.status, ended.out) == (3, "")
        assert len(ended.err.splitlines()) == 1
        assert "NODELEDGER_" in ended.err
        assert "very-secret" not in ended.err


async def test_the_doctor_says_which_setting_contradicts_the_installation(database: Database, vhost: Vhost) -> None:
    operator = shell(database, vhost)
    await operator.run("topology", "apply")
    connection = await asyncpg.connect(database.worker_url)
    await connection.execute("INSERT INTO nodeledger.installation (shards) VALUES (16)")
    await connection.close()
    examined = await operator.having(shards="4").run("doctor", "--json")
    assert examined.status == 1
    assert [one["remedy"] for one in examined.document if one["health"] == "bad"] == ["set NODELEDGER_SHARDS to 16"]
