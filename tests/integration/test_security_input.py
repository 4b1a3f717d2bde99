"""What a hostile sender can put into a message: each is answered or dead-lettered, and none stops a worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest

from schemas import COMMAND_EXCHANGE, command_key, shard_of
from tests.integration.cli_harness import INSTANCES, Shell, claim, put, shell, worker
from tests.integration.security_harness import read_until
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NODE = "cn-1"
STATUS = "SELECT status FROM nodeledger.outcome_view WHERE command = $1"
HOSTILE_TYPE = 'nvidia/35","vcpus\\",{}'
DEVICE = {"address": "0000:3b:00.0", "vendor": "10de", "product": "1db6", "mdev_types": {HOSTILE_TYPE: 4}}


@pytest.fixture
def operator(database: Database, vhost: Vhost) -> Shell:
    return shell(database, vhost)


@asynccontextmanager
async def sender(vhost: Vhost) -> AsyncIterator[aio_pika.abc.AbstractExchange]:
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        yield await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)


async def publish(exchange: aio_pika.abc.AbstractExchange, body: bytes, **properties: Any) -> None:
    await exchange.publish(aio_pika.Message(body, **properties), command_key(shard_of(NODE)))


def full(command: dict[str, Any]) -> tuple[str, bytes]:
    """A command with its envelope, and its id."""
    id_ = str(uuid4())
    document = {"version": 1, "id": id_, "issued_at": "2026-11-22T07:00:00Z", **command}
    return id_, json.dumps(document).encode()


async def test_names_from_an_inventory_cannot_break_a_statement(operator: Shell, tmp_path: Path) -> None:
    inventory = {"cpus": "0-7", "memory_mib": 16384, "disk_gib": 100, "devices": [DEVICE]}
    device = {"name": "gpu", "count": 2, "type": "mdev", "match": [{"mdev_type": HOSTILE_TYPE}]}
    async with worker(operator, tmp_path):
        sent = await operator.send(
            {"kind": "node.put", "node": NODE, "inventory": inventory}, claim(NODE, INSTANCES[0], devices=[device])
        )
        assert [line["status"] for line in sent.lines] == ["applied", "applied"], sent
        whole = {"name": "all", "match": [{"address": "0000:3b:00.0"}]}
        assert (await operator.send(claim(NODE, INSTANCES[1], devices=[whole]))).lines[0]["status"] == "rejected"
        verified = await operator.run("verify")
        assert verified.status == 0, verified
        assert (await operator.send({"kind": "delete", "node": NODE, "instance": INSTANCES[0]})).status == 0


async def test_properties_that_no_database_can_keep_stop_nothing(
    operator: Shell, database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    hostile: list[dict[str, Any]] = [
        {"reply_to": "a\0b"},
        {"correlation_id": "a\0b\x1b[31m"},
        {"reply_to": "nodeledger.commands.00", "correlation_id": "c" * 255},
        {"reply_to": "é" * 127},
        {"reply_to": "amq.rabbitmq.reply-to.g2dkABFnarbage"},
        {"headers": {"x": "\0", "y": {"z": [1, "\0"]}, "traceparent": "\r\n\0" * 100}},
    ]
    async with worker(operator, tmp_path), sender(vhost) as exchange:
        assert (await operator.send(put(NODE))).status == 0
        for number, properties in enumerate(hostile):
            id_, body = full(claim(NODE, INSTANCES[number], resources={"vcpus": 1, "memory_mib": 64}))
            await publish(exchange, body, **properties)
            assert await read_until(database, STATUS, id_) == "applied", properties
            await publish(exchange, b"\0 no command", **properties)
        arrived = "SELECT sum(attempts) >= $1::bigint FROM nodeledger.dead_letter_view"
        assert await read_until(database, arrived, len(hostile))
        assert (await operator.run("verify")).status == 0
