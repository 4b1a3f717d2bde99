"""A broker that takes no message above a size: it closes the channel, and all that was under way is in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import aio_pika
import aiohttp
import asyncpg
import pytest

from deploy.lib.stack import Stack
from schemas.routing import OUTCOME_EXCHANGE
from tests.integration.broker_harness import taker
from tests.integration.cli_harness import INSTANCES, claim, put, shell, worker
from tests.integration.test_answers_refused import answers, send, settled
from tests.integration.test_cli_dead import stamped
from tests.servers import Vhost, new_database, new_vhost, temporary_stack
from worker.broker.link import Link
from worker.engine.ports import NotConfirmed, Outgoing

pytestmark = pytest.mark.integration

LIMIT = 65_536


@pytest.fixture(scope="module")
def strict() -> Iterator[Stack]:
    with temporary_stack() as stack:
        stack.rabbitmq.control("eval", f"application:set_env(rabbit, max_message_size, {LIMIT}).")
        yield stack


@pytest.fixture
def strict_vhost(strict: Stack) -> Iterator[Vhost]:
    with new_vhost(strict) as made:
        yield made


def outcome(number: int, size: int = 2) -> Outgoing:
    return Outgoing(OUTCOME_EXCHANGE, "claim.applied.cn-1", b"x" * size, str(number))


async def test_one_message_above_the_brokers_limit_is_told_apart_and_costs_one_connection(strict_vhost: Vhost) -> None:
    async with taker(strict_vhost.url) as taking:
        messages = [outcome(number, LIMIT + 1 if number == 5 else 2) for number in range(20)]
        with pytest.raises(NotConfirmed) as caught:
            await taking.broker.publish(messages)
        assert [message.message_id for message in caught.value.too_large] == ["5"]
        assert not caught.value.refused
        await taking.broker.publish(caught.value.unanswered)
        connects = taking.broker.connects
        with pytest.raises(NotConfirmed) as caught:
            await taking.broker.publish([outcome(20, LIMIT), outcome(21, LIMIT + 1), outcome(22)])
        assert [message.message_id for message in caught.value.messages] == ["21"], "it knows the limit now"
        assert [message.message_id for message in caught.value.too_large] == ["21"]
        assert taking.broker.connects == connects


async def test_a_broker_that_does_not_tell_its_limit_has_met_the_largest(
    strict_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with taker(strict_vhost.url) as taking:
        link = await taking.broker._giving.ready(10)
        monkeypatch.setattr(Link, "_on_channel_closed", silent)
        await link.connection.close()
        await taking.broker.ready(10)
        with pytest.raises(NotConfirmed) as caught:
            await taking.broker.publish([outcome(1), outcome(2, LIMIT + 1), outcome(3, LIMIT)])
        assert [message.message_id for message in caught.value.too_large] == ["2"]
        await taking.broker.publish(caught.value.unanswered)


def silent(link: Link, channel: object, _reason: BaseException | None) -> None:
    if link.alive:
        link.failed_channel = channel
        link.failure = "the broker closed a channel: CONTENT_TOO_LARGE"
        link.abort()


async def test_an_answer_above_the_brokers_limit_is_given_up_and_delays_nobody(
    strict: Stack, strict_vhost: Vhost, tmp_path: Path
) -> None:
    names = [f"cn-{number}" for number in range(131)]
    custom = {f"CUSTOM_{'N' * 200}_{number}": 1 for number in range(256)}
    resources = {"vcpus": 1, "memory_mib": 64, "custom": custom}
    long = stamped(claim(names[0], INSTANCES[0], candidates=names[1:], resources=resources, dry_run=True))
    others = [stamped(claim(name, str(UUID(int=1000 + n)))) for n, name in enumerate(names[:60])]
    async with (
        new_database(strict) as database,
        worker(shell(database, strict_vhost), tmp_path) as address,
        await aio_pika.connect(strict_vhost.url) as connection,
        asyncpg.create_pool(database.superuser_url, min_size=1, max_size=1) as pool,
    ):
        channel = await connection.channel()
        replies = await channel.declare_queue(exclusive=True)
        await send(channel, [stamped(put(name)) for name in names], replies.name)
        assert len(await answers(replies, len(names))) == len(names)
        await send(channel, [long, *others], replies.name)
        assert set(await answers(replies, len(others))) == {other["id"] for other in others}
        await settled(lambda: pool.fetchval("SELECT count(*) FROM nodeledger.outbox"), 0)
        kept = await pool.fetchval("SELECT length(outcome) FROM nodeledger.command WHERE id = $1", UUID(long["id"]))
        assert LIMIT < kept < 1024 * 1024
        async with aiohttp.ClientSession() as http, http.get(f"{address}/metrics") as page:
            metrics = dict(line.rsplit(" ", 1) for line in (await page.text()).splitlines() if line[:1] != "#")
        assert float(metrics["nodeledger_outcomes_given_up_total"]) == 2
        assert float(metrics["nodeledger_broker_connects_total"]) == 3, "one connection was lost over it"
