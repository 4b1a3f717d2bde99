from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aio_pika
import aiohttp
import pytest

from schemas import COMMAND_EXCHANGE, OUTCOME_EXCHANGE, command_key, shard_of
from tests.integration.cli_harness import INSTANCES, claim, put, shell, worker
from tests.integration.test_cli_dead import stamped
from tests.published import published
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AWAY = "qemu+tls://127.0.0.1:1/system"


@pytest.mark.timeout(120)
async def test_a_trace_goes_on_with_every_outcome_and_through_the_car_park(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    unreachable = put("lv-1", inventory=None, hypervisor=AWAY, policy={"max_inventory_age_seconds": 0})
    commands = [stamped(unreachable), stamped(claim("lv-1", INSTANCES[0])), stamped(put("lv-1"))]
    operator = shell(database, vhost).having(
        hypervisor_allowed=AWAY, park_probe_min_seconds="0.1", trace_exporter="console"
    )
    async with worker(operator, tmp_path) as address, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        heard = await channel.declare_queue(exclusive=True)
        await heard.bind(OUTCOME_EXCHANGE, "#")
        exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
        for command in commands:
            message = aio_pika.Message(json.dumps(command).encode(), headers={"traceparent": TRACE})
            await exchange.publish(message, command_key(shard_of("lv-1", 16)))
        found: list[tuple[str, str, str]] = []
        async with asyncio.timeout(60), heard.iterator(no_ack=True) as outcomes:
            async for heard_one in outcomes:
                outcome = published(heard_one.body)
                trace = str(heard_one.headers["traceparent"])
                found.append((outcome["kind"], outcome["status"], trace.split("-")[1]))
                if found[-1][:2] == ("claim", "applied"):
                    break
        parts = TRACE.split("-")
        assert ("claim", "parked", parts[1]) in found
        assert {trace for _, _, trace in found} == {parts[1]}
        async with aiohttp.ClientSession() as http, http.get(f"{address}/metrics") as page:
            metrics = dict(line.rsplit(" ", 1) for line in (await page.text()).splitlines() if line[:1] != "#")
    assert float(metrics["nodeledger_database_up"]) == 1
    assert float(metrics["nodeledger_broker_connects_total"]) == 2
    assert float(metrics["nodeledger_outbox_messages"]) == 0
    spans = (tmp_path / "worker.log").read_text()
    assert spans.count(f'"trace_id": "0x{parts[1]}"') >= len(commands)
    assert f'"parent_id": "0x{parts[2]}"' in spans
