"""The session's supervision, over connections that come and go as a test has them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from schemas.backoff import Backoff
from schemas.client import link
from schemas.client.link import Link, Session
from schemas.errors import BrokerAwayError, UnroutableError

SECONDS = 30.0


class Connections:
    """In place of the library's class: remembers where each went, and which nodes are away."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.away: set[str] = set()
        self.closed = 0

    def __call__(self, url: Any, **_: Any) -> Any:
        host = url.host
        owner = self

        class Connection:
            def __init__(self) -> None:
                self.close_callbacks: set[Any] = set()
                self.kwargs: dict[str, Any] = {}

            async def connect(self) -> None:
                owner.tried.append(host)
                if host in owner.away:
                    raise ConnectionRefusedError(f"{host} refuses")

            async def close(self) -> None:
                owner.closed += 1

        return Connection()


class Part:
    """Notes what the session has it do."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.detached = 0
        self.refusal: Exception | None = None
        self.came = asyncio.Event()

    async def attach(self, link: Link) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.links.append(link)
        self.came.set()

    def detach(self, _link: Link) -> None:
        self.detached += 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self.links) < count:
                self.came.clear()
                await self.came.wait()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    made = Connections()
    monkeypatch.setattr("aio_pika.Connection", made)
    monkeypatch.setattr(link, "BACKOFF", Backoff(0.001, 0.001))
    return made


def session(part: Part) -> Session:
    made = Session(("amqp://a/", "amqp://b/"), None, "test")
    made.parts.append(part)
    return made


async def test_a_lost_connection_is_made_again_with_all_parts_on_the_next_node(connections: Connections) -> None:
    part = Part()
    made = session(part)
    await made.start(1)
    part.links[0].drop(BrokerAwayError("cut"))
    await part.until(2)
    later = Part()
    await made.add(later)
    part.links[1].drop(BrokerAwayError("cut"))
    await asyncio.gather(part.until(3), later.until(2))
    assert (connections.tried, made.losses) == (["a", "b", "a"], 2)
    await made.close()
    assert connections.closed == part.detached == 3


async def test_a_broker_that_is_away_at_first_is_told_once_every_node_was_tried(connections: Connections) -> None:
    connections.away = {"a", "b"}
    made = session(Part())
    with pytest.raises(BrokerAwayError, match="b refuses"):
        await made.start(1)
    assert connections.tried == ["a", "b"]
    await made.close()


async def test_a_node_that_is_away_is_passed_over(connections: Connections) -> None:
    connections.away = {"a"}
    part = Part()
    made = session(part)
    await made.start(1)
    assert connections.tried == ["a", "b"]
    await made.close()


async def test_what_makes_the_client_no_use_is_told_as_it_is(connections: Connections) -> None:
    part = Part()
    part.refusal = UnroutableError("no queues")
    made = session(part)
    with pytest.raises(UnroutableError, match="no queues"):
        await made.start(1)
    assert connections.closed == len(connections.tried)
    await made.close()
