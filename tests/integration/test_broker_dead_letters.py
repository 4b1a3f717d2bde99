from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import aio_pika
import pytest

from schemas.routing import COMMAND_EXCHANGE, DEAD_EXCHANGE, DEAD_QUEUE, DETAIL_HEADER, REASON_HEADER
from tests.integration.broker_harness import Taker, eventually, taker
from tests.servers import Vhost
from worker.broker.rabbit import RabbitBroker
from worker.broker.session import BrokerOptions
from worker.broker.tap import HEAD_BYTES
from worker.engine.ports import BrokerUnavailable, DeadLetter, LedgerUnavailable, Whole

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


async def test_of_letters_far_too_large_the_head_is_archived_with_the_size_and_digest_of_the_whole(
    vhost: Vhost,
) -> None:
    huge = [bytes((number,)) * (3 * 2**20) for number in range(12)]
    async with taker(vhost.url, archiving=True) as worker, await aio_pika.connect(vhost.url) as connection:
        dead = await (await connection.channel()).get_exchange(DEAD_EXCHANGE)
        for body in huge:
            await dead.publish(aio_pika.Message(body, headers={REASON_HEADER: "malformed"}), "")
        await worker.broker.dead_letter([DeadLetter(b"head", "too_large", "cut before", whole=Whole.of(huge[0]))])
        await worker.until(lambda: len(worker.letters) == 13)
        letters = {letter.whole: letter for letter in worker.letters if letter.reason == "malformed"}
        assert {whole: letter.body for whole, letter in letters.items()} == {
            Whole.of(body): body[:HEAD_BYTES] for body in huge
        }
        (cut_before,) = (letter for letter in worker.letters if letter.reason == "too_large")
        assert (cut_before.body, cut_before.whole) == (b"head", Whole.of(huge[0]))


@asynccontextmanager
async def archive_that_refuses(
    url: str, refuses: Callable[[DeadLetter], Exception | None]
) -> AsyncIterator[tuple[Taker, RabbitBroker]]:
    """A worker's broker side whose archive takes a batch only if it refuses none of it."""
    kept = Taker(url)

    async def store(letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            if (error := refuses(letter)) is not None:
                raise error
        await kept._store(letters)

    broker = RabbitBroker(BrokerOptions((url,), name="test"), 1, kept._take, store=store)
    broker.start()
    try:
        await broker.ready(30)
        yield kept, broker
    finally:
        await broker.close()


async def test_a_letter_that_the_archive_refuses_is_kept_without_what_it_refuses_and_delays_nobody(
    vhost: Vhost,
) -> None:
    def refuses(letter: DeadLetter) -> Exception | None:
        return ValueError("no such bytes") if b"raw 77" in letter.body or b"raw 78" in letter.body else None

    async with archive_that_refuses(vhost.url, refuses) as (kept, broker):
        await broker.dead_letter([letter(number) for number in range(150)])
        await kept.until(lambda: len(kept.letters) == 150)
        assert [one for one in kept.letters if one.whole is None] == [
            letter(number) for number in range(150) if number not in {77, 78}
        ]
        first, second = (one for one in kept.letters if one.whole is not None)
        assert (first.body, first.headers, first.command, first.reason) == (b"", {}, COMMAND, "malformed")
        assert (first.whole, second.whole) == (Whole.of(letter(77).body), Whole.of(letter(78).body))
        assert "no such bytes" in first.detail
        assert broker.state.archive is None


@pytest.mark.parametrize(("error", "stuck"), [(ValueError("never"), {3, 4, 5, 60}), (LedgerUnavailable("never"), {3})])
async def test_letters_that_cannot_be_stored_at_all_delay_nobody_and_stay_in_the_queue(
    vhost: Vhost, error: Exception, stuck: set[int]
) -> None:
    refused = {Whole.of(letter(number).body).digest for number in stuck}

    def refuses(one: DeadLetter) -> Exception | None:
        return error if (one.whole or Whole.of(one.body)).digest in refused else None

    async with archive_that_refuses(vhost.url, refuses) as (kept, broker):
        await broker.dead_letter([letter(number) for number in range(150)])
        await kept.until(lambda: len(kept.letters) == 150 - len(stuck))
        assert kept.letters == [letter(number) for number in range(150) if number not in stuck]
    async with taker(vhost.url, archiving=True) as successor:
        left = [letter(number).body for number in sorted(stuck)]
        # Acknowledgements under way as a connection closes may be lost, and what they were for comes again.
        await successor.until(lambda: {one.body for one in successor.letters} >= set(left))
        assert [one.body for one in successor.letters if one.body in left] == left


async def test_an_archive_that_is_away_is_told_until_letters_get_through(vhost: Vhost) -> None:
    back = asyncio.Event()

    def refuses(_letter: DeadLetter) -> Exception | None:
        return None if back.is_set() else LedgerUnavailable("no database")

    async with archive_that_refuses(vhost.url, refuses) as (kept, broker):
        await broker.dead_letter([letter(number) for number in range(20)])
        await eventually(lambda: broker.state.archive == "dead letters are not stored: no database")
        back.set()
        await kept.until(lambda: len(kept.letters) == 20)
        await eventually(lambda: broker.state.archive is None)


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


async def test_a_command_that_expires_in_its_queue_is_archived_with_its_reason_sender_and_way_back(
    vhost: Vhost,
) -> None:
    async with taker(vhost.url, archiving=True):
        pass  # declares what is there to publish to
    body = json.dumps({"id": str(COMMAND), "kind": "claim", "node": "cn-1"}).encode()
    async with await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(COMMAND_EXCHANGE, ensure=False)
        message = aio_pika.Message(
            body,
            expiration=0.001,
            reply_to="somewhere",
            correlation_id="c-1",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers={REASON_HEADER: "malformed", "x-nodeledger-senders": "admin", "own": "kept"},
        )
        await exchange.publish(message, "00")
    async with taker(vhost.url, archiving=True) as worker:
        await worker.until(lambda: worker.letters)
        (letter,) = worker.letters
        assert (letter.body, letter.reason) == (body, "expired_in_queue")
        assert "nodeledger.commands.00" in letter.detail
        assert (letter.command, letter.node, letter.kind) == (COMMAND, "cn-1", "claim")
        assert letter.headers["x-nodeledger-senders"] == "admin\n", "that it was not admin's stays to be seen"
        assert (letter.headers["own"], letter.headers["x-nodeledger-reply-to"]) == ("kept", "somewhere")
        assert letter.headers["x-nodeledger-correlation-id"] == "c-1"
        assert not worker.taken
        await worker.broker.dead_letter([DeadLetter(body, "poison", "why", headers={"x-death": [{"queue": "q"}]})])
        await worker.until(lambda: len(worker.letters) == 2)
        assert worker.letters[1].reason == "poison"
