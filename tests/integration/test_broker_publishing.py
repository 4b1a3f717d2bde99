from __future__ import annotations

import asyncio

import aio_pika
import pytest
from pamqp.common import FieldTable

from deploy.lib.stack import Stack
from schemas.routing import OUTCOME_EXCHANGE
from tests.integration.broker_harness import commands, eventually, taker
from tests.servers import Vhost
from worker.broker.publisher import WINDOW
from worker.engine.ports import NotConfirmed, Outgoing

pytestmark = pytest.mark.integration


def outcomes(count: int) -> list[Outgoing]:
    return [
        Outgoing(OUTCOME_EXCHANGE, "claim.applied.cn-1", b'{"n":%d}' % number, str(number), f"c{number}")
        for number in range(count)
    ]


async def test_outcomes_arrive_in_order_persistent_and_with_their_ids(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(OUTCOME_EXCHANGE, "claim.*.#")
        await worker.broker.publish(outcomes(3 * WINDOW + 7))
        seen = []
        async with queue.iterator(no_ack=True, timeout=20) as messages:
            async for message in messages:
                seen.append(message)
                if len(seen) == 3 * WINDOW + 7:
                    break
        assert [message.message_id for message in seen] == [str(number) for number in range(len(seen))]
        assert {message.delivery_mode for message in seen} == {aio_pika.DeliveryMode.PERSISTENT}
        assert (seen[5].body, seen[5].correlation_id, seen[5].content_type) == (b'{"n":5}', "c5", "application/json")


async def test_an_outcome_nobody_subscribed_to_is_no_error(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker:
        await worker.broker.publish([*outcomes(2), Outgoing("", "a-reply-queue-that-is-gone", b"{}")])
        assert worker.broker.publisher.counts.confirmed == 3


async def test_a_reply_never_goes_to_one_of_the_products_own_queues(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        replies = await channel.declare_queue(exclusive=True)
        own = [Outgoing("", name, b"{}") for name in ("nodeledger.commands.00", "nodeledger.dead")]
        await worker.broker.publish([*own, Outgoing("", replies.name, b"reply")])
        assert (await replies.get(no_ack=True, timeout=5)).body == b"reply"
        assert worker.broker.publisher.counts.refused == 2
        assert not worker.taken


async def test_what_was_under_way_when_the_connection_went_is_reported_and_can_be_sent_again(
    stack: Stack, vhost: Vhost
) -> None:
    async with taker(vhost.url, settling=True) as worker:
        cutting = asyncio.create_task(
            asyncio.to_thread(stack.rabbitmq.control, "close_all_connections", "--vhost", vhost.name, "cut by the test")
        )
        number, failures = 0, 0
        while not cutting.done() or not failures:
            batch = commands(range(number, number + 100))
            while batch:
                try:
                    await worker.broker.publish(batch)
                    batch = []
                except NotConfirmed as error:
                    failures += 1
                    batch = list(error.messages)
            number += 100
        await worker.until_all(number)
        assert failures < 10


async def test_a_missing_exchange_is_reported_and_declared_again(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        await channel.exchange_delete(OUTCOME_EXCHANGE)
        with pytest.raises(NotConfirmed) as caught:
            await worker.broker.publish(outcomes(3))
        assert [message.message_id for message in caught.value.messages] == ["0", "1", "2"]
        await worker.broker.publish(list(caught.value.messages))


async def test_a_message_the_broker_refuses_is_reported_and_its_neighbours_are_not(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        full: FieldTable = {"x-max-length": 0, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue("full", arguments=full, exclusive=True)
        await queue.bind(OUTCOME_EXCHANGE, "#.full")
        messages = outcomes(20)
        for number in (3, 11):
            messages[number].routing_key = "claim.applied.full"
        with pytest.raises(NotConfirmed, match="2 of 20") as caught:
            await worker.broker.publish(messages)
        assert sorted(str(message.message_id) for message in caught.value.messages) == ["11", "3"]


async def test_a_cancelled_publish_leaves_the_window_open_for_others(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker:
        for _ in range(5):
            publishing = asyncio.create_task(worker.broker.publish(outcomes(2 * WINDOW)))
            await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
        await asyncio.gather(*(worker.broker.publish(outcomes(WINDOW)) for _ in range(5)))
        await eventually(lambda: worker.broker.publisher.under_way == 0)
