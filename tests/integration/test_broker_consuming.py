from __future__ import annotations

import asyncio
from functools import partial

import pytest

from deploy.lib.stack import Stack
from tests.integration.broker_harness import commands, eventually, taker
from tests.servers import Vhost
from worker.broker import consumer

pytestmark = pytest.mark.integration

NEW = 1_000_000


async def left_over(vhost: Vhost) -> list[int]:
    """What the next worker on the first shard is given before anything new."""
    async with taker(vhost.url, settling=True) as following:
        await following.broker.publish(commands([NEW]))
        await following.until(lambda: NEW in following.bodies())
        return following.bodies()[:-1]


async def test_commands_of_a_shard_come_in_order_and_are_gone_once_settled(vhost: Vhost) -> None:
    async with taker(vhost.url, settling=True) as worker:
        for shard in (0, 1):
            await worker.broker.publish(commands(range(300), shard))
        await worker.until(lambda: len(worker.taken) == 600)
        assert worker.bodies(0) == worker.bodies(1) == list(range(300))
        assert worker.broker.state.active_shards == {0, 1}
        assert worker.broker.consumer.counts.ack_frames < 600, "one acknowledgement covers many"
        await worker.broker.drain(5)
    assert await left_over(vhost) == []


async def test_what_is_unfinished_goes_to_the_next_worker_in_the_old_order(vhost: Vhost) -> None:
    async with taker(vhost.url) as first, taker(vhost.url) as second:
        await first.broker.publish(commands(range(100)))
        await first.until(lambda: len(first.taken) == 50)
        assert not second.taken, "one active consumer at a time"
        second.settling = True
        first.broker.settle(first.taken[:3] + first.taken[4:6])
        await first.broker.drain(0.1)
        assert first.bodies() == list(range(50))
        await second.until(lambda: 99 in second.bodies())
        # 4 and 5 are finished, but stand above the gap that 3 left.
        assert second.bodies()[-97:] == list(range(3, 100))
        assert all(delivery.redelivered for delivery in second.taken[:47])


async def test_draining_waits_for_what_was_handed_out_and_takes_nothing_more(vhost: Vhost) -> None:
    async with taker(vhost.url) as first:
        await first.broker.publish(commands(range(60)))
        await first.until(lambda: len(first.taken) == 50)
        draining = asyncio.create_task(first.broker.drain(20))
        first.broker.settle(first.taken[1:])
        await asyncio.wait([draining], timeout=0.1)
        assert not draining.done(), "the first is unfinished"
        first.broker.settle(first.taken[:1])
        await draining
        assert first.bodies() == list(range(50))
        assert first.broker.state.unfinished == 0
        async with taker(vhost.url, settling=True) as second:
            await second.until(lambda: len(second.taken) == 10)
            assert second.bodies() == list(range(50, 60))


async def test_a_yielded_shard_moves_to_the_worker_standing_by_with_nothing_out_of_order(vhost: Vhost) -> None:
    async with taker(vhost.url, settling=True) as first, taker(vhost.url, settling=True) as second:
        order = second.order = first.order
        producing = asyncio.create_task(first.broker.publish(commands(range(5000))))
        for giving, getting in ((first, second), (second, first), (first, second)):
            before = len(getting.taken)
            await giving.broker.yield_shards([0])
            await getting.until(partial(lambda taken, before: len(taken) > before, getting.taken, before))
        await producing
        await eventually(lambda: len(order) >= 5000)
    assert order == list(range(5000))
    assert first.taken
    assert second.taken


async def test_after_a_cut_connection_the_unsettled_come_again_and_late_settling_does_no_harm(
    stack: Stack, vhost: Vhost
) -> None:
    async with taker(vhost.url) as worker:
        await worker.broker.publish(commands(range(20)))
        await worker.until(lambda: len(worker.taken) == 20)
        worker.broker.settle(worker.taken[:5])
        await eventually(lambda: worker.broker.consumer.counts.ack_frames == 1)
        stale = worker.taken[5:]
        generation = worker.broker.state.generation
        await asyncio.to_thread(
            stack.rabbitmq.control, "close_all_connections", "--vhost", vhost.name, "cut by the test"
        )
        await worker.until(lambda: len(worker.taken) == 35)
        assert worker.broker.state.generation > generation
        assert worker.bodies()[20:] == list(range(5, 20))
        worker.broker.settle(stale)
        await eventually(lambda: worker.broker.consumer.counts.stale)
        assert worker.broker.state.unfinished == 15, "the new deliveries are not settled by the old tags"
        worker.broker.settle(worker.taken[20:])
        await worker.broker.drain(5)
    assert await left_over(vhost) == []


async def test_a_paused_worker_leaves_its_shards_and_comes_back(vhost: Vhost) -> None:
    async with taker(vhost.url, settling=True) as first, taker(vhost.url, settling=True) as second:
        await first.broker.publish(commands(range(10)))
        await first.until(lambda: len(first.taken) == 10)
        await first.broker.consumer.pause(timeout=5)
        await first.broker.publish(commands(range(10, 20)))
        await second.until(lambda: len(second.taken) == 10)
        await first.broker.consumer.resume()
        await second.broker.drain(5)
        await first.broker.publish(commands(range(20, 30)))
        await first.until(lambda: len(first.taken) == 20)
        assert first.bodies()[10:] == list(range(20, 30))


async def test_a_deleted_queue_is_noticed_and_declared_again(stack: Stack, vhost: Vhost) -> None:
    async with taker(vhost.url, settling=True) as worker:
        await asyncio.to_thread(stack.rabbitmq.control, "delete_queue", "--vhost", vhost.name, "nodeledger.commands.00")
        await eventually(lambda: worker.broker.state.generation == 2 and worker.broker.state.consuming)


async def test_bodies_of_any_size_and_hostile_headers_arrive_whole(vhost: Vhost) -> None:
    async with taker(vhost.url, settling=True) as worker:
        message = commands([0])[0]
        message.body = bytes(range(256)) * 4096
        message.headers = {"traceparent": "00-" + "a" * 32, "x" * 200: "y" * 50_000}
        message.correlation_id = "c" * 255
        empty = commands([0])[0]
        empty.body = b""
        await worker.broker.publish([message, empty])
        await worker.until(lambda: len(worker.taken) == 2)
        first, second = worker.taken
        assert first.body == message.body
        assert first.headers == message.headers
        assert first.correlation_id == message.correlation_id
        assert second.body == b""


async def test_large_messages_are_read_no_faster_than_they_are_finished(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "HELD_MAX_BYTES", 1_000_000)
    async with taker(vhost.url) as worker:
        messages = commands(range(40))
        for message in messages:
            message.body = message.body.ljust(250_000)
        await worker.broker.publish(messages)
        settled = 0
        while settled < 40:
            assert worker.broker.state.unfinished <= 8
            await worker.until(partial(lambda settled: len(worker.taken) > settled, settled))
            fresh = worker.taken[settled:]
            settled += len(fresh)
            worker.broker.settle(fresh)
        assert worker.bodies() == list(range(40))
        await worker.broker.drain(5)


async def test_a_worker_that_reads_no_more_still_hands_over(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "HELD_MAX_BYTES", 1)
    async with taker(vhost.url) as first, taker(vhost.url, settling=True) as second:
        await first.broker.publish(commands(range(30)))
        await first.until(lambda: first.taken)
        async with asyncio.timeout(4):
            await first.broker.drain(0.1)
        await second.until(lambda: 29 in second.bodies())
        assert second.bodies() == list(range(30))
