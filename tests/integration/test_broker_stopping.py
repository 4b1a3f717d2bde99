from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import pytest

from tests.driver.proxy import Proxy
from tests.servers import Vhost
from worker.broker.rabbit import RabbitBroker
from worker.broker.session import BrokerOptions
from worker.engine.ports import Broker, BrokerUnavailable, DeadLetter, Outgoing
from worker.engine.shards import keep_share

pytestmark = pytest.mark.integration

_SHARDS = 4
_MOMENTS = 96
_AT_ONCE = 8
_STEP_SECONDS = 0.01
_ENDS_WITHIN = 20.0
"""Each close has seconds; those who swallow a cancellation go on for good."""


class Moving:
    """Gives the shards to another worker each time it is asked, so that they are handed over all the time."""

    def __init__(self) -> None:
        self._asked = 0

    async def heartbeat(self) -> None: ...

    async def assign(self, shards: int) -> dict[int, UUID]:
        self._asked += 1
        return dict.fromkeys(range(shards), UUID(int=self._asked + 1))


async def again_and_again(send: Any) -> None:
    while True:
        try:
            await send()
        except BrokerUnavailable:
            await asyncio.sleep(0.001)


def through(url: str, proxy: Proxy) -> str:
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}"))


async def one(url: str, moment: int) -> str | None:
    """A worker's use of the broker, whose connections are cut around the time it is told to stop; what went wrong."""
    random = Random(moment)
    async with Proxy(urlsplit(url).port or 5672) as proxy:
        broker = RabbitBroker(
            BrokerOptions((through(url, proxy),), connect_seconds=5.0), _SHARDS, lambda _delivery: None, store=_forget
        )
        broker.start()
        services = [
            asyncio.create_task(service)
            for service in (
                keep_share(Moving(), cast(Broker, broker), UUID(int=1), _SHARDS, _tell, _tell),
                again_and_again(lambda: broker.publish([Outgoing("", "nobody", b"{}")])),
                again_and_again(lambda: broker.dead_letter([DeadLetter(b"x", "malformed", "")])),
            )
        ]
        await asyncio.sleep(moment * _STEP_SECONDS)
        cutting = asyncio.create_task(_cut(proxy, random))
        await asyncio.sleep(random.uniform(0.0, 0.02))
        for service in services:
            service.cancel()
        _, left = await asyncio.wait(services, timeout=_ENDS_WITHIN)
        fault = f"at {moment}: {left} go on" if left else await _closing(broker.drain(0.0), broker.close(), moment)
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
    return fault


async def _cut(proxy: Proxy, random: Random) -> None:
    for _ in range(20):
        proxy.cut(random)
        await asyncio.sleep(random.uniform(0.0, 0.005))


async def _closing(drain: Awaitable[None], close: Awaitable[None], moment: int) -> str | None:
    try:
        async with asyncio.timeout(_ENDS_WITHIN):
            await drain
            await close
    except TimeoutError:
        return f"at {moment}: the broker is not closed"
    return None


async def _forget(_letters: object) -> None: ...


def _tell(_news: object) -> None: ...


@pytest.mark.timeout(300)
async def test_a_worker_whose_connections_are_cut_as_it_stops_ends_whenever_that_is(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.shards._EVERY_SECONDS", 0.01)
    faults: list[str] = []
    for first in range(0, _MOMENTS, _AT_ONCE):
        some = await asyncio.gather(*(one(vhost.url, moment) for moment in range(first, first + _AT_ONCE)))
        faults += [fault for fault in some if fault is not None]
    assert not faults
