"""The whole path with exactly the rights that the scripts in deploy/ give, and nothing beyond them."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import aio_pika
import aiormq
import asyncpg
import pytest
from yarl import URL

from deploy.lib.stack import Stack
from schemas import COMMAND_EXCHANGE, OUTCOME_EXCHANGE, command_key
from schemas.routing import DEAD_EXCHANGE, DEAD_QUEUE, command_queue
from tests.integration.cli_harness import INSTANCES, claim, put, shell, worker
from tests.integration.security_harness import read_until
from tests.servers import DEPLOY_STACK, Database, new_database

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DEPLOY = DEPLOY_STACK.parent
ROLES = ("worker", "producer", "observer", "operator")


def script(name: str, *arguments: str, stdin: str = "", **environment: str) -> str:
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}
    done = subprocess.run(
        [DEPLOY / name, *arguments], input=stdin, env=path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def users(stack: Stack) -> Iterator[dict[str, str]]:
    """The address of a user of each role, in a virtual host that the script made."""
    vhost = f"test-{uuid4().hex}"
    control = f"{DEPLOY_STACK} ctl --dir {stack.folder}"
    urls = {}
    for role in ROLES:
        password, name = uuid4().hex, f"{role}-{uuid4().hex[:8]}"
        said = script("broker-permissions", "--vhost", vhost, role, name, stdin=f"{password}\n", RABBITMQCTL=control)
        assert password not in said
        urls[role] = str(URL(stack.rabbitmq.url(vhost)).with_user(name).with_password(password))
    yield urls
    for url in urls.values():
        stack.rabbitmq.control("delete_user", str(URL(url).user))
    stack.rabbitmq.control("delete_vhost", vhost)


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Database]:
    """A database without a schema, in whose server the script made the roles, with the passwords they had."""
    async with new_database(stack, schema=False) as made:
        passwords = stack.postgres.passwords
        script(
            "database-roles",
            "--database",
            made.name,
            PGHOST="127.0.0.1",
            PGPORT=str(stack.postgres.port),
            PGUSER="postgres",
            PGPASSWORD=passwords["postgres"],
            **{f"NODELEDGER_{r.upper()}_PASSWORD": passwords[f"nodeledger_{r}"] for r in ("owner", "worker", "reader")},
        )
        yield made


async def test_the_whole_road_runs_with_the_least_rights(
    database: Database, users: dict[str, str], tmp_path: Path
) -> None:
    base = shell(database).having(declare_topology="false")
    operator, producer = base.having(amqp_url=users["operator"]), base.having(amqp_url=users["producer"])
    assert (await operator.run("db", "upgrade")).status == 0
    assert (await operator.run("topology", "apply")).status == 0
    assert (await operator.run("db", "check")).status == 0
    async with worker(base.having(amqp_url=users["worker"]), tmp_path):
        sent = await producer.send(put("cn-1"), claim("cn-1", INSTANCES[0]))
        assert [outcome["status"] for outcome in sent.lines] == ["applied", "applied"], sent
        bad = '{"node": "cn-1", "kind": "nonsense"}\n'
        assert (await producer.run("send", "--raw", "-", text=bad)).status == 0
        letter = await read_until(database, "SELECT id FROM nodeledger.dead_letter_view")
        assert (await operator.run("dead", "discard", str(letter))).status == 0
        assert (await operator.run("verify")).status == 0
        assert (await operator.run("node", "show", "cn-1")).status == 0
    resharded = await operator.run("topology", "reshard", "3")
    assert resharded.status == 0, resharded.err
    log = (tmp_path / "worker.log").read_text()
    assert "ACCESS_REFUSED" not in log


async def let(url: str, *steps: str) -> list[str]:
    """Those of the steps that the broker lets a user do."""
    connection = await aio_pika.connect(url)
    done = []
    async with connection:
        for step in steps:
            channel = await connection.channel()
            try:
                await _attempt(channel, step)
                done.append(step)
            except (aiormq.exceptions.ChannelAccessRefused, aiormq.exceptions.ChannelNotFoundEntity):
                pass
    return done


async def _ignored(_message: object) -> None:
    pass


async def _attempt(channel: aio_pika.abc.AbstractChannel, step: str) -> None:
    verb, _, name = step.partition(" ")
    if verb == "publish":
        name, _, key = name.partition(" ")
        exchange = await channel.get_exchange(name, ensure=False) if name != "-" else channel.default_exchange
        await exchange.publish(aio_pika.Message(b"{}"), key)
    elif verb == "consume":
        queue = await channel.get_queue(name, ensure=False)
        await queue.consume(_ignored)
    elif verb == "subscribe":
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(name, "#")
    elif verb == "declare":
        await channel.declare_queue(name, durable=True)
    elif verb == "purge":
        await (await channel.get_queue(name, ensure=False)).purge()
    else:
        await channel.queue_delete(name)


ALLOWED = {
    "producer": {f"publish {COMMAND_EXCHANGE} {command_key(0)}"},
    "observer": {f"subscribe {OUTCOME_EXCHANGE}"},
    "worker": {
        f"publish {OUTCOME_EXCHANGE} claim.applied.cn-1",
        f"publish {DEAD_EXCHANGE} x",
        f"publish - {command_queue(0)}",
        f"consume {DEAD_QUEUE}",
        f"purge {DEAD_QUEUE}",  # who may consume may purge
        f"consume {command_queue(0)}",
        f"purge {command_queue(0)}",
    },
}


async def test_a_broker_user_can_do_nothing_beyond_its_role(users: dict[str, str]) -> None:
    operator = shell().having(amqp_url=users["operator"])
    assert (await operator.run("topology", "apply")).status == 0
    everything = (
        f"publish {COMMAND_EXCHANGE} {command_key(0)}",
        f"publish {OUTCOME_EXCHANGE} claim.applied.cn-1",
        f"publish {OUTCOME_EXCHANGE} forged",
        f"publish {DEAD_EXCHANGE} x",
        f"publish - {command_queue(0)}",
        f"subscribe {OUTCOME_EXCHANGE}",
        f"subscribe {DEAD_EXCHANGE}",
        f"consume {command_queue(0)}",
        f"consume {DEAD_QUEUE}",
        f"purge {DEAD_QUEUE}",
        "declare nodeledger.commands.99",
        "declare something",
        f"purge {command_queue(0)}",
        f"delete {command_queue(0)}",
    )
    for role, allowed in ALLOWED.items():
        assert set(await let(users[role], *everything)) == allowed, role


def test_the_rights_that_the_script_gave_are_in_order_and_wider_ones_are_told(
    stack: Stack, users: dict[str, str]
) -> None:
    control = f"{DEPLOY_STACK} ctl --dir {stack.folder}"
    for role, url in users.items():
        name, vhost = str(URL(url).user), URL(url).path.removeprefix("/")
        assert script("broker-permissions", "--vhost", vhost, "--check", role, name, RABBITMQCTL=control) == "", role
    name, vhost = str(URL(users["observer"]).user), URL(users["observer"]).path.removeprefix("/")
    with pytest.raises(AssertionError):
        script("broker-permissions", "--vhost", vhost, "--check", "producer", name, RABBITMQCTL=control)


async def test_a_worker_reads_no_queue_but_those_of_the_product(users: dict[str, str]) -> None:
    connection = await aio_pika.connect(users["operator"])
    async with connection:
        theirs = await (await connection.channel()).declare_queue(durable=False)
        assert await let(users["worker"], f"consume {theirs.name}", f"purge {theirs.name}") == []
        assert await let(users["operator"], f"purge {theirs.name}") == [f"purge {theirs.name}"]
        await theirs.delete()


async def test_a_database_role_can_do_nothing_beyond_its_task(database: Database) -> None:
    assert (await shell(database).run("db", "upgrade")).status == 0
    forbidden = {
        database.worker_url: (
            "DELETE FROM nodeledger.entry",
            "UPDATE nodeledger.entry SET kind = 'x'",
            "TRUNCATE nodeledger.entry",
            "DELETE FROM nodeledger.command",
            "DROP TABLE nodeledger.node",
            "ALTER TABLE nodeledger.node ADD x int",
            "CREATE TABLE nodeledger.x ()",
            "CREATE TABLE public.x ()",
            "CREATE TEMP TABLE x ()",
            "CREATE ROLE x",
            "COPY nodeledger.node TO PROGRAM 'true'",
            "SET ROLE nodeledger_owner",
            "UPDATE nodeledger.dead_letter_action SET actor = 'x'",
        ),
        database.reader_url: (
            "SELECT FROM nodeledger.node",
            "SELECT FROM nodeledger.command",
            "INSERT INTO nodeledger.node (name) VALUES ('x')",
            "CREATE TABLE public.x ()",
        ),
    }
    for url, statements in forbidden.items():
        connection = await asyncpg.connect(url)
        for statement in statements:
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
                await connection.execute(statement)
        await connection.close()
