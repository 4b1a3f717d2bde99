"""Publishing over a connection that may die at any moment: what is not confirmed is told, whoever notices first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast

from hypothesis import given
from hypothesis import strategies as st

from worker.broker.publisher import Publisher
from worker.broker.tap import Confirms
from worker.engine.ports import BrokerUnavailable, NotConfirmed, Outgoing

Answer = Literal["taken", "refused", "silence"]
Fate = Literal["lives", "is lost while it drains", "is lost and told", "is dead before"]


@dataclass
class Moment:
    """What happens around one write: an answer for each message, and how the link fares."""

    answers: list[Answer]
    fate: Fate = "lives"


@dataclass
class DyingLink:
    """A link to a broker that answers as it was told, and keeps what it has taken."""

    moments: list[Moment]
    taken: list[Outgoing] = field(default_factory=list)
    alive: bool = True
    failure: str = "the connection to the broker was lost"
    failed_channel: object = None
    frame_max: int = 131_072
    now: Moment = field(default_factory=lambda: Moment([]))
    sent: int = 0

    def __post_init__(self) -> None:
        self.tap = SimpleNamespace(unblocked=asyncio.Event(), blocked=None)
        self.tap.unblocked.set()

    async def channel(self, sink: Confirms, *, confirms: bool) -> object:
        assert confirms
        self.sink = sink
        return SimpleNamespace(number=1)

    def write(self, _frames: bytes) -> bool:
        self.now = self.moments.pop(0)
        if self.now.fate == "is dead before":
            self.alive = False
        return self.alive

    async def drain(self) -> None:
        if self.now.fate == "is lost while it drains":
            raise BrokerUnavailable("reset by peer")

    def answer(self, publisher: Publisher, messages: list[Outgoing]) -> None:
        """Answer for the messages of the last write, whose numbers follow those before."""
        for message, answer in zip(messages, self.now.answers, strict=False):
            self.sent += 1
            if answer == "taken":
                self.taken.append(message)
            if answer != "silence":
                cast("Any", publisher)._channel._on_confirm(self.sent, False, answer == "taken")
        if self.now.fate == "is lost and told":
            self.alive = False
            publisher.detach(cast("Any", self))


moments = st.builds(
    Moment,
    st.lists(st.sampled_from(["taken", "refused", "silence"]), min_size=3, max_size=3),
    st.sampled_from(["lives", "is lost while it drains", "is lost and told", "is dead before"]),
)


@given(st.lists(moments, min_size=1, max_size=4), st.integers(1, 3))
def test_what_the_broker_did_not_take_is_told_however_the_connection_dies(script: list[Moment], size: int) -> None:
    asyncio.run(_publish_all(script, size))


async def _publish_all(script: list[Moment], size: int) -> None:
    link = DyingLink(list(script))

    async def ready(_seconds: float) -> DyingLink:
        return link

    publisher = Publisher(cast("Any", SimpleNamespace(ready=ready, link=link)), confirm_seconds=0.02)
    await publisher.attach(cast("Any", link))
    for number in range(len(script)):
        messages = [Outgoing("outcomes", "key", b"%d.%d" % (number, at)) for at in range(size)]
        publishing = asyncio.ensure_future(publisher.publish(messages))
        await asyncio.sleep(0)
        if link.alive:
            link.answer(publisher, messages)
        missing: list[Outgoing] = []
        try:
            await publishing
        except NotConfirmed as error:
            missing = list(error.messages)
        confirmed = [one for one in messages if one not in missing]
        assert all(one in link.taken for one in confirmed)
        if link.alive and link.now.fate == "lives":
            assert confirmed == [one for one in messages if one in link.taken]
        assert publisher.under_way == 0
