"""Broker users and what the rules let each of them do, with a broker that vouches for who they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aio_pika
import asyncpg
import pytest
from yarl import URL

from deploy.lib.stack import Stack
from schemas import COMMAND_EXCHANGE, command_key, shard_of
from tests.integration.cli_harness import INSTANCES, Ended, Shell, claim, put, shell, worker
from tests.integration.security_harness import read_until
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RULES = """
[[rules]]
users = ["{root}"]

[[rules]]
users = ["{bob}"]
nodes = ["cn-*"]
projects = ["acme"]
"""


@pytest.fixture
def users(stack: Stack, vhost: Vhost) -> Iterator[dict[str, str]]:
    """Addresses of two users of the broker; what they may do there is another test's matter."""
    broker = stack.rabbitmq
    names = {name: f"{name}-{uuid4().hex[:8]}" for name in ("root", "bob")}
    for name in names.values():
        broker.control("add_user", name, "secret")
        broker.control("set_permissions", "-p", vhost.name, name, ".*", ".*", ".*")
    yield {name: str(URL(vhost.url).with_user(user).with_password("secret")) for name, user in names.items()}
    for name in names.values():
        broker.control("delete_user", name)


def codes(sent: Ended) -> list[list[str]]:
    assert sent.lines, sent
    return [[reason["code"] for reason in outcome["reasons"]] or [outcome["status"]] for outcome in sent.lines]


def delete(node: str, instance: str) -> dict[str, str]:
    return {"kind": "delete", "node": node, "instance": instance}


async def test_each_user_does_what_the_rules_say_and_no_more(
    database: Database, vhost: Vhost, users: dict[str, str], tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES.format(**{name: URL(url).user for name, url in users.items()}))
    operator = shell(database, vhost)
    root, bob = operator.having(amqp_url=users["root"]), operator.having(amqp_url=users["bob"])
    async with worker(operator.having(permissions=str(rules)), tmp_path):
        assert codes(await root.send(put("cn-1"), put("db-1"))) == [["applied"]] * 2
        rivals = await root.send({**claim("cn-1", INSTANCES[0]), "project": "rival"})
        assert codes(rivals) == [["applied"]]
        assert codes(await bob.send(claim("cn-1", INSTANCES[1]))) == [["applied"]]

        foreign = delete("cn-1", INSTANCES[0]) | {"id": str(uuid4())}
        refused = await bob.send(
            foreign,
            foreign,
            put("cn-2"),
            claim("db-1", INSTANCES[2]),
            {"kind": "resize", "node": "cn-1", "instance": INSTANCES[1], "resources": {"vcpus": 1, "memory_mib": 64},
             "destination": "db-1"},
        )  # fmt: skip
        assert all(reasons == ["not_permitted"] for reasons in codes(refused))
        assert all(outcome["usage"] == {} for outcome in refused.lines)
        assert codes(await bob.send(delete("cn-1", INSTANCES[1]))) == [["applied"]]
        assert codes(await root.send(put("cn-3") | {"id": foreign["id"]})) == [["applied"]], "the id is still free"

        await _a_replay_lends_nobody_its_rights(database, root, users["bob"])
        assert (await operator.run("verify")).status == 0
    reader = await asyncpg.connect(database.reader_url)
    held = await reader.fetchval("SELECT count(*) FROM nodeledger.allocation_view WHERE instance = $1", INSTANCES[0])
    await reader.close()
    assert held == 1


async def _a_replay_lends_nobody_its_rights(database: Database, root: Shell, bob: str) -> None:
    """A command that bob puts on the wrong queue dies unjudged; replayed by root, it is still judged as his."""
    id_ = str(uuid4())
    command = {**delete("cn-1", INSTANCES[0]), "id": id_, "version": 1, "issued_at": "2026-11-22T07:00:00Z"}
    connection = await aio_pika.connect(bob)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
        answers = await channel.declare_queue(exclusive=True)
        message = aio_pika.Message(json.dumps(command).encode(), user_id=URL(bob).user, reply_to=answers.name)
        await exchange.publish(message, command_key((shard_of("cn-1") + 1) % 16))
        async with answers.iterator(no_ack=True, timeout=120) as incoming:
            dead = json.loads((await anext(incoming)).body)
            assert (dead["status"], dead["usage"]) == ("dead", {}), "of a node that is not his he learns nothing"
            letter = await read_until(database, "SELECT id FROM nodeledger.dead_letter_view WHERE command = $1", id_)
            assert (await root.run("dead", "replay", str(letter))).status == 0
            refused = json.loads((await anext(incoming)).body)
    assert (refused["status"], [reason["code"] for reason in refused["reasons"]]) == ("rejected", ["not_permitted"])
