from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import aio_pika
import pytest
from yarl import URL

from deploy.lib.stack import Stack
from schemas.routing import COMMAND_EXCHANGE, DEAD_QUEUE
from tests.integration.broker_harness import DEADLINE_SECONDS, Taker, refusal
from tests.servers import Vhost
from worker.broker import topology
from worker.broker.link import Link
from worker.broker.session import BrokerOptions, Session

pytestmark = pytest.mark.integration

SHARDS = 3


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    async def nothing(_link: Link) -> None:
        pass

    session = Session(BrokerOptions((url,)), "test", on_ready=nothing, on_lost=lambda _link: None)
    session.start()
    try:
        yield await session.ready(DEADLINE_SECONDS)
    finally:
        await session.close()


def user_without_configure(stack: Stack, vhost: Vhost) -> str:
    """The address for a broker user who may publish and consume, and declare nothing."""
    name = f"runner-{uuid4().hex}"
    stack.rabbitmq.control("add_user", name, "secret")
    stack.rabbitmq.control("set_permissions", "--vhost", vhost.name, name, "^$", ".*", ".*")
    return str(URL(vhost.url).with_user(name).with_password("secret"))


async def test_applying_twice_is_as_good_as_once_and_then_nothing_is_wrong(vhost: Vhost) -> None:
    async with linked(vhost.url) as link:
        missing = await topology.check(link, SHARDS)
        assert len(missing) == 3 + 1 + SHARDS
        assert all("topology apply" in finding.remedy for finding in missing)
        assert await topology.apply(link, SHARDS) == []
        assert await topology.apply(link, SHARDS) == []
        assert await topology.check(link, SHARDS) == []


async def test_queues_of_another_kind_and_queues_too_many_are_found(vhost: Vhost) -> None:
    async with linked(vhost.url) as link, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("nodeledger.commands.01", durable=True)
        findings = await topology.apply(link, SHARDS)
        assert [finding.subject for finding in findings] == ["queue nodeledger.commands.01"]
        assert "x-queue-type" in findings[0].problem or "type" in findings[0].problem
        assert [finding.subject for finding in await topology.check(link, SHARDS - 1)] == [
            "queue nodeledger.commands.01",
            "queue nodeledger.commands.02",
        ]


async def test_queues_from_before_the_brokers_upgrade_are_used_and_named(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(vhost.url) as link:
        monkeypatch.setattr(topology, "LIMITS_DELIVERIES_SINCE", (99,))
        assert await topology.apply(link, SHARDS) == []
        monkeypatch.setattr(topology, "LIMITS_DELIVERIES_SINCE", (0,))
        findings = await topology.apply(link, SHARDS + 1)
        assert [finding.subject for finding in findings] == [
            "queue nodeledger.dead",
            *(f"queue nodeledger.commands.0{shard}" for shard in range(SHARDS)),
        ]
        assert not any(finding.blocking for finding in findings)
        assert findings == await topology.check(link, SHARDS + 1)
        await topology.ensure(link, SHARDS + 1, declare=True)
        await topology.ensure(link, SHARDS, declare=False)


async def test_a_worker_that_may_declare_nothing_runs_on_what_another_user_declared(stack: Stack, vhost: Vhost) -> None:
    url = await asyncio.to_thread(user_without_configure, stack, vhost)
    worker = Taker(url, shards=SHARDS)
    worker.broker.start()
    try:
        said = await refusal(worker.broker)
        assert "topology apply" in said
        assert "secret" not in said
        async with linked(vhost.url) as link:
            assert await topology.apply(link, SHARDS) == []
        await worker.broker.ready(DEADLINE_SECONDS)
    finally:
        await worker.broker.close()


async def test_a_password_that_is_wrong_is_said_without_the_password(vhost: Vhost) -> None:
    worker = Taker(str(URL(vhost.url).with_password("hunter2")))
    worker.broker.start()
    try:
        said = await refusal(worker.broker)
        assert "ACCESS_REFUSED" in said
        assert "hunter2" not in said
    finally:
        await worker.broker.close()


async def test_queues_without_a_dead_letter_exchange_are_used_and_named(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(vhost.url) as link:
        with monkeypatch.context() as before:
            before.setattr(topology, "_EXPIRED", {})
            assert await topology.apply(link, SHARDS) == []
        findings = await topology.apply(link, SHARDS + 1)
        assert [finding.subject for finding in findings] == [
            f"queue nodeledger.commands.0{shard}" for shard in range(SHARDS)
        ]
        assert all("expires" in finding.problem and "set_policy" in finding.remedy for finding in findings)
        assert not any(finding.blocking for finding in findings)
        assert findings == await topology.check(link, SHARDS + 1)
        await topology.ensure(link, SHARDS, declare=True)


def printed(remedy: str) -> list[str]:
    """The arguments of the `rabbitmqctl` that a remedy names."""
    return shlex.split(remedy.partition("`rabbitmqctl ")[2].partition("`")[0])


async def test_the_policies_that_are_printed_do_what_was_missing(
    stack: Stack, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def control(command: str, *arguments: str) -> str:
        return stack.rabbitmq.control(command, "--vhost", vhost.name, *arguments)

    async with linked(vhost.url) as link:
        with monkeypatch.context() as before:
            before.setattr(topology, "_EXPIRED", {})
            before.setattr(topology, "LIMITS_DELIVERIES_SINCE", (99,))
            assert await topology.apply(link, SHARDS) == []
        monkeypatch.setattr(topology, "LIMITS_DELIVERIES_SINCE", (0,))
        findings = await topology.check(link, SHARDS)
        assert len(findings) == 1 + SHARDS
        for remedy in dict.fromkeys(finding.remedy for finding in findings):
            await asyncio.to_thread(control, *printed(remedy))
        policies = json.loads(await asyncio.to_thread(control, "list_policies", "--formatter", "json"))
        limits = {policy["name"]: json.loads(policy["definition"]).get("delivery-limit") for policy in policies}
        queues = json.loads(await asyncio.to_thread(control, "list_queues", "name", "policy", "--formatter", "json"))
        assert [limits.get(queue["policy"]) for queue in queues] == [topology.NEVER] * len(findings)
        await comes_to_the_dead_letters(vhost)


async def comes_to_the_dead_letters(vhost: Vhost) -> None:
    """Publish what expires at once, again until the policy is in force, and wait for one of it."""
    async with await aio_pika.connect(vhost.url) as connection, asyncio.timeout(60):
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
        dead = await channel.get_queue(DEAD_QUEUE, ensure=False)
        while True:
            await exchange.publish(aio_pika.Message(b"expiring", expiration=0.001), "00")
            if (letter := await dead.get(no_ack=True, fail=False)) is not None:
                assert (letter.body, letter.headers["x-first-death-reason"]) == (b"expiring", "expired")
                return
            await asyncio.sleep(0.1)
