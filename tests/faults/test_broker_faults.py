from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from deploy.lib.stack import Stack
from schemas.routing import OUTCOME_EXCHANGE
from tests.integration.broker_harness import DEADLINE_SECONDS, commands, eventually, taker
from tests.servers import Vhost
from worker.engine.ports import BrokerUnavailable, DeadLetter, NotConfirmed, Outgoing

pytestmark = pytest.mark.faults


def messages_in(stack: Stack, vhost: Vhost, queue: str) -> int:
    table = stack.rabbitmq.control("list_queues", "--vhost", vhost.name, "--no-table-headers", "name", "messages")
    return int(dict(map(str.split, table.splitlines()))[queue])


def first_times(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


@pytest.mark.parametrize("immediate", [False, True], ids=["restart", "crash"])
async def test_a_broker_that_went_away_loses_nothing_and_breaks_no_order(
    stack: Stack,
    vhost: Vhost,
    immediate: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    def away_and_back() -> None:
        stack.rabbitmq.stop(immediate=immediate)
        stack.rabbitmq.start()

    async with taker(vhost.url, settling=True, archiving=True) as worker:
        await worker.broker.dead_letter([DeadLetter(b"before", "malformed", "")])
        restarting = asyncio.create_task(asyncio.to_thread(away_and_back))
        number = 0
        while not restarting.done() or number < 1000:
            batch = commands(range(number, number + 50))
            while batch:
                try:
                    await worker.broker.publish(batch)
                    break
                except NotConfirmed as error:
                    batch = list(error.messages)
            number += 50
        await restarting
        await worker.until_all(number, seconds=60)
        await worker.broker.dead_letter([DeadLetter(b"after", "malformed", "")])
        await worker.until(lambda: {one.body for one in worker.letters} == {b"before", b"after"}, seconds=60)
        assert first_times(worker.bodies()) == list(range(number))
        assert worker.broker.state.generation > 1


async def test_a_broker_out_of_memory_holds_publishers_back_and_no_acknowledgement(stack: Stack, vhost: Vhost) -> None:
    async with taker(vhost.url) as worker:
        worker.broker.publisher._confirm_seconds = 2
        await worker.broker.publish(commands(range(10)))
        await worker.until(lambda: len(worker.taken) == 10)
        await asyncio.to_thread(stack.rabbitmq.control, "set_vm_memory_high_watermark", "0.000001")
        try:
            outcome = Outgoing(OUTCOME_EXCHANGE, "claim.applied.cn-1", b"{}", "1")
            with suppress(BrokerUnavailable):
                await worker.broker.publish([outcome])  # what makes the broker say that it blocks us
            with pytest.raises(BrokerUnavailable, match="blocks publishers"):
                await worker.broker.publish([outcome])
            assert not worker.broker.state.publishing
            assert worker.broker.state.blocked
            assert worker.broker.publisher.under_way <= 5, "nothing more is sent to a broker that does not read"
            worker.broker.settle(worker.taken)
            await worker.broker.drain(5)
            # What the broker tells of its queues is seconds old.
            await eventually(lambda: not messages_in(stack, vhost, "nodeledger.commands.00"))
        finally:
            await asyncio.to_thread(stack.rabbitmq.control, "set_vm_memory_high_watermark", "0.4")
        await eventually(lambda: worker.broker.state.publishing)
        await worker.broker.publish([outcome])


async def test_without_a_broker_publishing_and_dead_lettering_fail_in_time_and_work_again_afterwards(
    stack: Stack, vhost: Vhost
) -> None:
    async with taker(vhost.url) as worker:
        worker.broker.publisher._confirm_seconds = 1
        await asyncio.to_thread(stack.rabbitmq.stop)
        await eventually(lambda: not worker.broker.state.publishing)
        with pytest.raises(NotConfirmed):
            await worker.broker.publish(commands([1]))
        assert worker.broker.state.last_error
        await asyncio.to_thread(stack.rabbitmq.start)
        await worker.broker.ready(DEADLINE_SECONDS)
        await worker.broker.publish(commands([2]))
        await worker.until(lambda: 2 in worker.bodies())
