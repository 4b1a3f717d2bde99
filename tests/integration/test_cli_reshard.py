from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import pytest

from schemas import COMMAND_EXCHANGE, command_key, command_queue, shard_of
from tests.integration.broker_harness import write_command
from tests.integration.cli_harness import PROGRAM, Shell, claim, put, shell, worker
from tests.integration.test_broker_topology import linked
from tests.integration.test_cli_dead import stamped
from tests.property.test_messages import nested
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NODES = [f"cn-{number}" for number in range(20)]
TINY = {"vcpus": 1, "memory_mib": 1}


@pytest.fixture
async def operator(database: Database, vhost: Vhost) -> Shell:
    """An installation of four shards."""
    made = shell(database, vhost).having(shards="4")
    connection = await asyncpg.connect(database.worker_url)
    await connection.execute("INSERT INTO nodeledger.installation (shards) VALUES (4)")
    await connection.close()
    assert (await made.run("topology", "apply")).status == 0
    return made


def backlog(count: int) -> list[dict[str, Any]]:
    """Each node's settings, and then claims on all nodes in turn."""
    wide = {"cpus": "0-63", "memory_mib": 65536, "disk_gib": 1}
    puts = [stamped(put(node, inventory=wide)) for node in NODES]
    instances = (f"00000000-0000-4000-8000-{number:012}" for number in range(count))
    claims = [stamped(claim(NODES[at % 20], one, resources=TINY)) for at, one in enumerate(instances)]
    return puts + claims


async def publish(vhost: Vhost, commands: Sequence[dict[str, Any]], shards: int) -> None:
    async with await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(COMMAND_EXCHANGE)
        for command in commands:
            key = command_key(shard_of(command["node"], shards))
            await exchange.publish(aio_pika.Message(json.dumps(command).encode(), reply_to="someone"), key)


async def drain(
    vhost: Vhost, shards: int, askers: Collection[str | None] = frozenset({"someone"})
) -> dict[int, list[str]]:
    """What the queues hold, by shard; they hold it still afterwards."""
    found: dict[int, list[str]] = {}
    async with await aio_pika.connect(vhost.url) as connection:
        for shard in range(shards):
            channel = await connection.channel()
            queue = await channel.declare_queue(command_queue(shard), passive=True)
            arrived: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
            await queue.consume(arrived.put)
            async with asyncio.timeout(30):
                messages = [await arrived.get() for _ in range(queue.declaration_result.message_count or 0)]
            assert {message.reply_to for message in messages} <= set(askers)
            found[shard] = [json.loads(message.body)["id"] for message in messages]
            await channel.close()
    return found


def of_node(found: dict[int, list[str]], node: str, shards: int, commands: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A node's commands in the order in which they would take effect: that in which each is met first."""
    own = {command["id"] for command in commands if command["node"] == node}
    return iter(dict.fromkeys(one for one in found[shard_of(node, shards)] if one in own))


def assert_nothing_is_lost_and_each_node_in_order(
    found: dict[int, list[str]], shards: int, commands: Sequence[dict[str, Any]]
) -> None:
    for node in NODES:
        sent = [command["id"] for command in commands if command["node"] == node]
        assert list(of_node(found, node, shards, commands)) == sent, node
    assert sum(len(set(bodies)) for bodies in found.values()) == len(commands), "none is in two queues"


@pytest.mark.parametrize("shards", [7, 3, 4])
async def test_a_backlog_is_shared_out_anew_with_nothing_lost_and_each_node_in_order(
    operator: Shell, vhost: Vhost, shards: int
) -> None:
    commands = backlog(600)
    await publish(vhost, commands, 4)
    done = await operator.run("topology", "reshard", str(shards), "--json")
    assert done.status == 0, done.err
    assert (done.document["gathered"], done.document["shared_out"]) == (620, 620)
    later = [stamped(claim(node, f"00000000-0000-4000-9000-{at:012}")) for at, node in enumerate(NODES)]
    await publish(vhost, later, shards)
    assert_nothing_is_lost_and_each_node_in_order(await drain(vhost, shards), shards, [*commands, *later])
    checked = await operator.having(shards=str(shards)).run("topology", "check")
    assert checked.status == 0, checked.out


async def test_a_message_with_headers_that_cannot_be_read_is_moved_like_all_others(
    operator: Shell, vhost: Vhost
) -> None:
    first, *others = commands = backlog(20)
    async with linked(vhost.url) as link:
        channel = await link.scratch_channel()
        write_command(link, channel.number or 0, shard_of(first["node"], 4), nested(500), json.dumps(first).encode())
        await channel.close()
    await publish(vhost, others, 4)
    done = await operator.run("topology", "reshard", "7", "--json")
    assert done.status == 0, done.err
    assert (done.document["gathered"], done.document["shared_out"]) == (40, 40)
    found = await drain(vhost, 7, {"someone", None})
    assert_nothing_is_lost_and_each_node_in_order(found, 7, commands)


@pytest.mark.parametrize("sharing_out", [False, True])
async def test_one_that_was_killed_is_finished_by_running_it_again_and_no_worker_starts_before(
    operator: Shell, vhost: Vhost, *, sharing_out: bool
) -> None:
    commands = backlog(600)
    await publish(vhost, commands, 4)
    assert await killed_while(operator, sharing_out=sharing_out)
    early = await operator.having(http_port="0").run("worker")
    assert (early.status, "topology reshard 7" in early.err) == (1, True), early.err
    late = [stamped(claim(node, f"00000000-0000-4000-9000-{at:012}")) for at, node in enumerate(NODES)]
    await publish(vhost, late, 4)
    done = await operator.run("topology", "reshard", "7")
    assert done.status == 0, done.err
    assert_nothing_is_lost_and_each_node_in_order(await drain(vhost, 7), 7, [*commands, *late])


async def killed_while(operator: Shell, *, sharing_out: bool) -> bool:
    """Run the command in a process that kills itself after the first window of a phase, before acknowledging it."""
    script = f"""
import os, signal, sys
from worker.cli import main
from worker.operations import moving, resharding
move, ack_frame, phase = moving._move, moving.ack_frame, []
async def moving_from(link, source, *more):
    phase[:] = [source]
    await move(link, source, *more)
def dying(*arguments):
    if {sharing_out} == (phase == [resharding.BACKLOG]):
        os.kill(os.getpid(), signal.SIGKILL)
    return ack_frame(*arguments)
moving._move, moving.ack_frame = moving_from, dying
sys.argv = [{str(PROGRAM)!r}, "topology", "reshard", "7"]
main()
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=operator.environment)
    async with asyncio.timeout(60):
        return await process.wait() == -9


async def test_workers_have_to_stop_first_and_apply_everything_once_with_the_new_number(
    operator: Shell, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    async with worker(operator, tmp_path):
        refused = await operator.run("topology", "reshard", "7")
        assert (refused.status, "stop the workers" in refused.err) == (1, True), refused.err
    commands = backlog(200)
    await publish(vhost, commands, 4)
    connection = await asyncpg.connect(database.worker_url)
    done = await operator.run("topology", "reshard", "7")
    assert done.status == 0, done.err
    old = await operator.having(http_port="0").run("worker")
    assert (old.status, "7" in old.err) == (1, True)
    resharded = operator.having(shards="7")
    again = tmp_path / "again"
    again.mkdir()
    async with worker(resharded, again):
        last = await resharded.send(
            *(claim(node, f"00000000-0000-4000-a000-{at:012}", resources=TINY) for at, node in enumerate(NODES))
        )
        assert last.status == 0, last.err
    applied = "SELECT count(*) FROM nodeledger.command WHERE status = 'applied'"
    assert await connection.fetchval(applied) == len(commands) + len(NODES)
    assert await connection.fetchval("SELECT count(*) FROM nodeledger.dead_letter") == 0
    await connection.close()
