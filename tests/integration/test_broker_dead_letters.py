from __future__ import annotations

from uuid import UUID

import aio_pika
import pytest

from schemas.routing import COMMAND_EXCHANGE, DEAD_EXCHANGE, DEAD_QUEUE, DETAIL_HEADER, REASON_HEADER
from tests.integration.broker_harness import eventually, taker
from tests.servers import Vhost
from worker.engine.ports import BrokerUnavailable, DeadLetter

pytestmark = pytest.mark.integration

COMMAND = UUID("0199c0de-0000-7000-8000-000000000001")


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        b"\xff raw %d" % number,
        "malformed",
        "not UTF-8",
        COMMAND,
        "cn-1",
        "claim",
        {"traceparent": "00-x", "nested": {"list": [1, "two", None]}},
    )


async def test_a_dead_lettered_message_is_archived_as_it_was(vhost: Vhost) -> None:
    async with taker(vhost.url, archiving=True) as worker:
        await worker.broker.dead_letter([letter(number) for number in range(150)])
        await worker.until(lambda: len(worker.letters) == 150)
        assert worker.letters == [letter(number) for number in range(150)]


async def test_dead_letters_wait_for_an_archive_and_survive_its_failures(vhost: Vhost) -> None:
    async with taker(vhost.url) as dead_letters:
        await dead_letters.broker.dead_letter([letter(number) for number in range(120)])
    async with taker(vhost.url, archiving=True) as worker:
        worker.store_failures = 2
        await worker.until(lambda: len(worker.letters) == 120)
        assert worker.letters == [letter(number) for number in range(120)]
    async with taker(vhost.url, archiving=True) as successor:
        await successor.broker.dead_letter([letter(200)])
        await successor.until(lambda: successor.letters)
        assert successor.letters == [letter(200)], "what was archived is gone from the queue"


async def test_other_programs_read_the_reason_in_the_headers(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker, await aio_pika.connect(vhost.url) as connection:
        await worker.broker.dead_letter([DeadLetter(b"{", "malformed", "é" * 2000, headers={"k": "v"})])
        channel = await connection.channel()
        queue = await channel.get_queue(DEAD_QUEUE)
        found = await queue.get(no_ack=True, timeout=5)
        assert found.body == b"{"
        assert found.headers[REASON_HEADER] == "malformed"
        assert len(str(found.headers[DETAIL_HEADER]).encode()) <= 4096
        assert found.headers["k"] == "v"
        assert found.delivery_mode == aio_pika.DeliveryMode.PERSISTENT


async def test_headers_too_large_to_pass_on_are_left_out_and_the_body_is_kept(vhost: Vhost) -> None:
    async with taker(vhost.url, archiving=True) as worker:
        huge = DeadLetter(b"body", "too_large", "…", headers={"h": "x" * 120_000})
        await worker.broker.dead_letter([huge])
        await worker.until(lambda: worker.letters)
        assert (worker.letters[0].body, worker.letters[0].reason) == (b"body", "too_large")
        assert worker.letters[0].headers == {}


async def test_strangers_in_the_queue_are_archived_too(vhost: Vhost) -> None:
    async with taker(vhost.url, archiving=True) as worker, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        dead = await channel.get_exchange(DEAD_EXCHANGE)
        await dead.publish(aio_pika.Message(b"no headers"), "somewhere")
        await dead.publish(
            aio_pika.Message(b"odd headers", headers={REASON_HEADER: 7, "x-nodeledger-command": "no uuid"}), ""
        )
        await worker.until(lambda: len(worker.letters) == 2)
        assert [one.body for one in worker.letters] == [b"no headers", b"odd headers"]
        assert {one.reason for one in worker.letters} == {"malformed"}
        assert "somewhere" in worker.letters[0].detail


async def test_a_letter_that_reaches_no_queue_is_not_taken_for_safe(vhost: Vhost) -> None:
    async with taker(vhost.url) as worker, await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(DEAD_QUEUE)
        await queue.unbind(DEAD_EXCHANGE, "")
        with pytest.raises(BrokerUnavailable):
            await worker.broker.dead_letter([letter(1)])
        await queue.bind(DEAD_EXCHANGE, "")
        await worker.broker.dead_letter([letter(1)])
        await eventually(lambda: worker.broker.state.publishing)


def test_the_names_of_exchange_and_queue_are_the_contracts() -> None:
    assert (COMMAND_EXCHANGE, DEAD_EXCHANGE, DEAD_QUEUE) == (
        "nodeledger.commands",
        "nodeledger.dead",
        "nodeledger.dead",
    )
