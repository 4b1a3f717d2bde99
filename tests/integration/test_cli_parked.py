from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import pytest

from schemas import COMMAND_EXCHANGE, DEFAULT_SHARDS, command_key, shard_of
from tests.integration.cli_harness import INSTANCES, as_lines, claim, shell, worker
from tests.integration.test_cli_dead import stamped
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration

AWAY = "qemu+tls://127.0.0.1:1/system"
SMALL = {"vcpus": 1, "memory_mib": 256}


def at(address: str) -> dict[str, Any]:
    return {"kind": "node.put", "node": "lv-1", "hypervisor": address, "policy": {"max_inventory_age_seconds": 0}}


async def until(connection: asyncpg.Connection, expected: object, query: str, *arguments: object) -> None:
    """Wait until a query gives the expected value."""
    async with asyncio.timeout(60):
        found = None
        while found != expected:
            await asyncio.sleep(0.05)
            found = await connection.fetchval(query, *arguments)


@pytest.mark.timeout(300)
async def test_parked_commands_are_listed_given_up_and_pushed_and_what_was_given_up_can_be_replayed(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost).having(hypervisor_allowed=f"{AWAY} test:///default")
    commands = [stamped(claim("lv-1", INSTANCES[number], resources=SMALL)) for number in range(3)]
    async with worker(operator.having(park_probe_max_seconds="600"), tmp_path):
        first = await operator.run("send", text=as_lines([at(AWAY), *commands]))
        assert first.status == 0, first.err
        connection = await asyncpg.connect(database.worker_url)
        await until(connection, len(commands), "SELECT count(*) FROM nodeledger.parked_command")
        listed = (await operator.run("parked", "list", "--json")).document
        ids = [command["id"] for command in commands]
        assert [one["command"] for one in listed if one["kind"] == "claim"] == ids
        summed = (await operator.run("parked", "list", "--nodes", "--json")).document
        assert [(one["node"], one["commands"]) for one in summed] == [("lv-1", len(listed))]

        dropped = await operator.run("parked", "drop", ids[0], ids[1], "--actor", "ann", "--json")
        assert (dropped.status, dropped.document) == (0, {"dropped": 2})
        assert (await operator.run("parked", "drop", ids[0])).status == 1, "it is given up already"
        letters = (await operator.run("dead", "list", "--json")).document
        assert [(one["command"], one["reason"]) for one in letters] == [
            (ids[0], "hypervisor_timeout"),
            (ids[1], "hypervisor_timeout"),
        ]
        shown = (await operator.run("dead", "show", str(letters[0]["id"]), "--json")).document
        assert [(one["actor"], one["action"]) for one in shown["actions"]] == [("ann", "dropped")]
        status = "SELECT status FROM nodeledger.command WHERE id = $1"
        assert await connection.fetchval(status, UUID(ids[0])) == "dead"

        await operator.run("send", text=as_lines([at("test:///default")]))
        assert (await operator.run("parked", "push", "lv-1", "lv-9", "--json")).status == 1
        await until(connection, "applied", status, UUID(ids[2]))
        assert (await operator.run("dead", "replay", "--all")).status == 0
        answered = await operator.run("send", "--wait", text=as_lines(commands))
        assert [line["status"] for line in answered.lines] == ["applied"] * 3
        assert (await operator.run("verify")).status == 0
        await connection.close()


RUNNING = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The instance whose domain libvirt's test driver runs from its start."""


@pytest.mark.timeout(300)
async def test_a_deleted_instance_whose_domain_still_runs_is_asked_after_at_the_set_pause(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    async with worker(operator.having(delete_verify_seconds="900"), tmp_path):
        begun = await operator.send(at("test:///default"), claim("lv-1", RUNNING, resources=SMALL))
        assert begun.status == 0, begun.err
        await operator.run("send", text=as_lines([{"kind": "delete", "node": "lv-1", "instance": RUNNING}]))
        connection = await asyncpg.connect(database.worker_url)
        later = "SELECT next_at > now() + interval '10 minutes' FROM nodeledger.probe WHERE node = 'lv-1'"
        await until(connection, expected=True, query=later)
        (parked,) = (await operator.run("parked", "list", "--json")).document
        assert (parked["kind"], parked["blocking"], "still runs" in parked["detail"]) == ("delete", False, True)
        await connection.close()


@pytest.mark.timeout(300)
async def test_a_deleted_instance_whose_domain_never_goes_is_dead_lettered_at_the_deadline(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    impatient = operator.having(delete_verify_seconds="0.2", park_probe_min_seconds="0.2", park_deadline_seconds="1")
    async with worker(impatient, tmp_path):
        given_up = await operator.send(
            at("test:///default"),
            claim("lv-1", RUNNING, resources=SMALL),
            {"kind": "delete", "node": "lv-1", "instance": RUNNING},
        )
        assert "1 dead" in given_up.err
    (letter,) = (await operator.run("dead", "list", "--json")).document
    assert (letter["kind"], letter["reason"]) == ("delete", "hypervisor_timeout")
    assert (await operator.run("verify")).status == 0


@pytest.mark.timeout(300)
async def test_a_copy_of_a_parked_command_on_a_wrong_shard_is_dead_lettered_and_the_command_applied_later(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost).having(hypervisor_allowed=f"{AWAY} test:///default")
    command = stamped(claim("lv-1", INSTANCES[0], resources=SMALL))
    async with worker(operator, tmp_path):
        await operator.run("send", text=as_lines([at(AWAY), command]))
        connection = await asyncpg.connect(database.worker_url)
        await until(connection, 1, "SELECT count(*) FROM nodeledger.parked_command")
        broker = await aio_pika.connect(vhost.url)
        exchange = await (await broker.channel()).get_exchange(COMMAND_EXCHANGE, ensure=False)
        sent = await connection.fetchval("SELECT body FROM nodeledger.parked_command")
        for _ in range(2):
            await exchange.publish(aio_pika.Message(sent), command_key((shard_of("lv-1") + 1) % DEFAULT_SHARDS))
        letter = "SELECT state FROM nodeledger.dead_letter WHERE reason = 'misrouted' AND attempts = 2"
        await until(connection, "open", letter)
        assert (await operator.run("verify")).status == 0
        await operator.run("send", text=as_lines([at("test:///default")]))
        await operator.run("parked", "push", "lv-1")
        status = "SELECT status FROM nodeledger.command WHERE id = $1"
        await until(connection, "applied", status, UUID(command["id"]))
        await until(connection, "resolved", letter)
        assert (await operator.run("verify")).status == 0
        await broker.close()
        await connection.close()
