"""A broker that takes no message above a size: it closes the channel, and all that was under way is in doubt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.lib.stack import Stack
from schemas.routing import OUTCOME_EXCHANGE
from tests.integration.broker_harness import taker
from tests.servers import Vhost, new_vhost, temporary_stack
from worker.broker.session import Link
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
    async with taker(strict_vhost.url) as worker:
        messages = [outcome(number, LIMIT + 1 if number == 5 else 2) for number in range(20)]
        with pytest.raises(NotConfirmed) as caught:
            await worker.broker.publish(messages)
        assert [message.message_id for message in caught.value.too_large] == ["5"]
        assert not caught.value.refused
        await worker.broker.publish(caught.value.unanswered)
        connects = worker.broker.connects
        with pytest.raises(NotConfirmed) as caught:
            await worker.broker.publish([outcome(20, LIMIT), outcome(21, LIMIT + 1), outcome(22)])
        assert [message.message_id for message in caught.value.messages] == ["21"], "it knows the limit now"
        assert [message.message_id for message in caught.value.too_large] == ["21"]
        assert worker.broker.connects == connects


async def test_a_broker_that_does_not_tell_its_limit_has_met_the_largest(
    strict_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with taker(strict_vhost.url) as worker:
        link = await worker.broker._giving.ready(10)
        monkeypatch.setattr(Link, "_on_channel_closed", silent)
        await link.connection.close()
        await worker.broker.ready(10)
        with pytest.raises(NotConfirmed) as caught:
            await worker.broker.publish([outcome(1), outcome(2, LIMIT + 1), outcome(3, LIMIT)])
        assert [message.message_id for message in caught.value.too_large] == ["2"]
        await worker.broker.publish(caught.value.unanswered)


def silent(link: Link, channel: object, _reason: BaseException | None) -> None:
    if link.alive:
        link.failed_channel = channel
        link.failure = "the broker closed a channel: CONTENT_TOO_LARGE"
        link.abort()
