from __future__ import annotations

import asyncio
from typing import Any, cast
from unittest.mock import Mock

import pytest

from worker.broker.link import Link, asked
from worker.broker.session import BrokerOptions, Session
from worker.engine.ports import BrokerUnavailable


def session() -> Session:
    async def ready(_link: Link) -> None: ...

    return Session(BrokerOptions(("amqp://nowhere/",)), "test", on_ready=ready, on_lost=lambda _link: None)


@pytest.mark.parametrize("turns", range(5))
async def test_whoever_waits_for_a_link_and_is_cancelled_as_it_comes_is_cancelled(turns: int) -> None:
    made = session()
    waiter = asyncio.create_task(made.ready(20))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    made.link = cast(Link, Mock(alive=True))
    made._ready.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_waiting = waiter.cancel()
    await asyncio.wait((waiter,))
    assert waiter.cancelled() == was_waiting


async def test_a_session_ends_though_the_library_turns_its_cancellation_into_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = session()
    connecting = asyncio.Event()

    async def live(_url: Any) -> None:
        connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("closed") from None

    monkeypatch.setattr(made, "_live", live)
    made.start()
    async with asyncio.timeout(20):
        await connecting.wait()
        await made.close()
    assert made.failures == 1


async def test_what_the_library_cancels_is_a_broker_that_is_away_and_no_cancellation_of_ours() -> None:
    async def cancelled_by_the_library() -> None:
        raise asyncio.CancelledError

    with pytest.raises(BrokerUnavailable, match="lost"):
        await asked(cancelled_by_the_library())


async def test_the_library_has_its_time_and_no_longer() -> None:
    with pytest.raises(BrokerUnavailable, match=r"0\.01 s"):
        await asked(asyncio.Event().wait(), 0.01)
