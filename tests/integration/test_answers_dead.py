"""Whoever sent what is no command is told so, where its id and where to answer can be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest

from schemas import COMMAND_EXCHANGE, OUTCOME_EXCHANGE, command_key, shard_of
from schemas.routing import DEAD_QUEUE
from tests.integration.cli_harness import INSTANCES, claim, put, shell, worker
from tests.integration.test_cli_dead import stamped
from tests.published import published
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NODE = "cn-1"


def broken(**fields: Any) -> dict[str, Any]:
    return {**stamped(claim(NODE, INSTANCES[1])), **fields}


async def test_a_refused_message_is_answered_dead_with_its_reason(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    first = stamped(put(NODE))
    sent = {
        "malformed": broken(resources={"vcpus": "many"}),
        "unknown_kind": broken(kind="clam"),
        "unsupported_version": broken(version=2),
        "id_reuse": broken(id=first["id"]),
    }
    async with worker(shell(database, vhost), tmp_path), await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        replies, heard = [await channel.declare_queue(exclusive=True) for _ in range(2)]
        await heard.bind(OUTCOME_EXCHANGE, "#")
        exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
        bodies = [first, *sent.values(), {"id": "no id"}, broken(id=str(uuid4()), node="no node")]
        for number, body in enumerate(bodies):
            message = aio_pika.Message(json.dumps(body).encode(), reply_to=replies.name, correlation_id=f"c{number}")
            await exchange.publish(message, command_key(shard_of(NODE)))
        outcomes: dict[str, Any] = {}
        async with asyncio.timeout(60), replies.iterator(no_ack=True) as messages:
            async for answer in messages:
                outcomes[str(answer.correlation_id)] = published(answer.body)
                if len(outcomes) == len(bodies) - 1:
                    break
        assert outcomes["c0"]["status"] == "applied"
        for number, (reason, body) in enumerate(sent.items(), 1):
            outcome = outcomes[f"c{number}"]
            assert (outcome["status"], outcome["command"]) == ("dead", body["id"])
            assert outcome["dead_letter"]["reason"] == reason
            assert outcome["dead_letter"]["detail"]
        assert "c5" not in outcomes, "nobody can tell whose answer that would be"
        keys = []
        while (told := await heard.get(no_ack=True, fail=False)) is not None:
            keys.append(told.routing_key)
        assert sorted(map(str, keys)) == [f"claim.dead.{NODE}", f"claim.dead.{NODE}", f"node.put.applied.{NODE}"]


async def test_whoever_sent_what_expired_in_its_queue_is_answered_dead(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    assert (await operator.run("topology", "apply")).status == 0
    sent = [stamped(claim(NODE, INSTANCES[0])), broken(resources={"vcpus": "many"})]
    async with await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        replies = await channel.declare_queue(exclusive=True)
        exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
        for number, body in enumerate(sent):
            message = aio_pika.Message(
                json.dumps(body).encode(), reply_to=replies.name, correlation_id=f"c{number}", expiration=0.001
            )
            await exchange.publish(message, command_key(shard_of(NODE)))
        async with asyncio.timeout(60):
            await dead_letters_wait(channel, len(sent))
            async with worker(operator, tmp_path), replies.iterator(no_ack=True) as messages:
                outcomes = {str(one.correlation_id): published(one.body) async for one in first(messages, len(sent))}
    for number, body in enumerate(sent):
        outcome = outcomes[f"c{number}"]
        assert (outcome["status"], outcome["command"], outcome["sequence"]) == ("dead", body["id"], 0)
        assert outcome["dead_letter"]["reason"] == "expired_in_queue"


async def dead_letters_wait(channel: aio_pika.abc.AbstractChannel, count: int) -> None:
    """Wait until so many messages are in the dead-letter queue, which nobody takes from."""
    while True:
        found = await channel.declare_queue(DEAD_QUEUE, passive=True)
        if (found.declaration_result.message_count or 0) >= count:
            return
        await asyncio.sleep(0.1)


async def first(
    messages: aio_pika.abc.AbstractQueueIterator, count: int
) -> AsyncIterator[aio_pika.abc.AbstractIncomingMessage]:
    for _ in range(count):
        yield await anext(messages)
