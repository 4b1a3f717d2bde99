"""What is under way, over channels that answer as a test has them answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from pydantic_core import to_json

from schemas import Command, Outcome, command_key, shard_of
from schemas.asking import command_of
from schemas.backoff import Backoff
from schemas.client import Message, post
from schemas.client.many import Many
from schemas.client.post import Post
from schemas.client.shards import learned
from schemas.errors import NoAnswerError, UnreadableAnswerError, UnroutableError

SECONDS = 30.0


class Line:
    """A link, its only channel, and the queue of answers."""

    def __init__(self, shards: int = 16) -> None:
        self.shards = shards
        self.published: list[tuple[str, str]] = []
        """The routing key and the id of each message, in order."""
        self.refusals: list[Exception] = []
        """What the next messages meet."""
        self.confirming = True
        self.dropped: list[BaseException] = []
        self.came = asyncio.Event()
        self.close_callbacks: set[Callable[..., None]] = set()

    async def channel(self, *, confirms: bool = False) -> Line:
        assert confirms
        return self

    async def scratch_channel(self) -> Any:
        async def declare_queue(name: str, *, passive: bool) -> None:
            assert passive
            if int(name[-2:]) >= self.shards:
                raise ChannelNotFoundEntity

        async def close() -> None: ...

        return SimpleNamespace(declare_queue=declare_queue, close=close)

    async def get_underlay_channel(self) -> Line:
        return self

    async def basic_publish(self, _body: bytes, *, routing_key: str, properties: Any, **_: Any) -> None:
        self.published.append((routing_key, properties.message_id))
        self.came.set()
        if self.refusals:
            raise self.refusals.pop(0)
        if not self.confirming:
            await asyncio.Event().wait()

    def drop(self, why: BaseException) -> None:
        self.dropped.append(why)

    async def until(self, count: int) -> list[str]:
        """The ids of what was published, once there are so many."""
        async with asyncio.timeout(SECONDS):
            while len(self.published) < count:
                self.came.clear()
                await self.came.wait()
        return [id_ for _, id_ in self.published]


class Answers:
    """In place of the queue of answers."""

    name = "amq.gen-answers"

    def __init__(self) -> None:
        self.checks = 0
        self.take: Callable[[bytes], None] = lambda _: None

    async def listen(self, _link: object, take: Callable[[bytes], None]) -> None:
        self.take = take

    async def check(self, _link: object) -> None:
        self.checks += 1

    def give(self, command: Command, status: str, **more: Any) -> None:
        told = {"command": command.id, "kind": command.kind, "status": status, "node": command.node}
        self.take(to_json({**told, "at": command.issued_at, **more}))


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
async def posted(answers: Answers) -> AsyncIterator[Post]:
    made = Post(Any, 16, answers, "me")  # type: ignore[arg-type]
    yield made
    await made.close()


def delete(node: str = "cn-1") -> Command:
    return command_of("delete", node, instance=uuid4())


def sent(made: Post, *commands: Command, **how: Any) -> list[Any]:
    return [made.post(Message.of(command), SECONDS, answered=True, **how) for command in commands]


async def attached(made: Post, line: Line) -> Line:
    await made.attach(line)  # type: ignore[arg-type]
    return line


async def test_the_first_final_answer_counts_and_what_waits_is_told_once(posted: Post, answers: Answers) -> None:
    line, command = await attached(posted, Line()), delete()
    told: list[Outcome] = []
    (pending,) = sent(posted, command, on_parked=told.append)
    await line.until(1)
    answers.give(command, "parked")
    answers.give(command, "parked")
    answers.give(delete(), "rejected")
    answers.give(command, "applied")
    answers.give(command, "rejected")
    assert (await pending.answer).outcome.status == "applied"
    assert [outcome.status for outcome in told] == ["parked"]
    answers.give(command, "rejected")


async def test_on_a_new_connection_all_that_is_under_way_is_sent_again_in_its_order(
    posted: Post, answers: Answers
) -> None:
    first, commands = await attached(posted, Line()), [delete(f"cn-{number % 3}") for number in range(20)]
    sent(posted, *commands)
    ids = [str(command.id) for command in commands]
    assert await first.until(20) == ids
    posted.detach(first)  # type: ignore[arg-type]
    answers.give(commands[4], "applied")
    late = delete()
    sent(posted, late)
    second = await attached(posted, Line())
    assert await second.until(20) == [*ids[:4], *ids[5:], str(late.id)]


async def test_what_the_broker_refuses_is_sent_again_with_what_followed_it_for_its_node(
    posted: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "NACKED", Backoff(0.01, 0.01))
    line = await attached(posted, Line())
    line.confirming = False
    line.refusals.append(DeliveryError(None, None))  # type: ignore[arg-type]
    one, other, follower = delete("cn-1"), delete("cn-2"), delete("cn-1")
    sent(posted, one, other, follower)
    ids = await line.until(5)
    assert ids == [str(command.id) for command in (one, other, follower, one, follower)]


async def test_what_is_not_confirmed_or_not_answered_is_sent_again(
    posted: Post, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "CONFIRM_SECONDS", 0.01)
    monkeypatch.setattr(post, "AGAIN", Backoff(0.01, 0.01))
    monkeypatch.setattr(post, "_LOOK_SECONDS", 0.01)
    line = Line()
    line.confirming = False
    await attached(posted, line)
    command = delete()
    sent(posted, command)
    assert set(await line.until(3)) == {str(command.id)}
    line.confirming = True
    assert set(await line.until(8)) == {str(command.id)}
    assert answers.checks


async def test_what_no_queue_takes_is_an_error_that_says_what_to_do(posted: Post) -> None:
    line = await attached(posted, Line())
    line.refusals.append(PublishError.__new__(PublishError))
    (pending,) = sent(posted, delete())
    with pytest.raises(UnroutableError, match="topology check"):
        await pending.answer


async def test_what_this_user_may_not_send_is_an_error_and_sent_once(posted: Post) -> None:
    line = await attached(posted, Line())
    line.refusals.append(ChannelAccessRefused("write refused"))
    (pending,) = sent(posted, delete())
    with pytest.raises(UnroutableError, match="may not publish"):
        await pending.answer
    assert line.dropped
    assert len(line.published) == 1


async def test_an_answer_that_cannot_be_read_is_no_silence(posted: Post, answers: Answers) -> None:
    await attached(posted, Line())
    command = delete()
    (pending,) = sent(posted, command)
    answers.give(command, "postponed")
    answers.take(b"nonsense")
    with pytest.raises(UnreadableAnswerError):
        await pending.answer


async def test_without_an_answer_in_time_the_error_names_the_command_and_says_what_is_known(
    posted: Post, answers: Answers
) -> None:
    line, command = await attached(posted, Line()), delete()
    pending = posted.post(Message.of(command), 0.2, answered=True)
    await line.until(1)
    answers.give(command, "parked")
    assert pending.answer is not None
    with pytest.raises(NoAnswerError, match="1 of them parked") as caught:
        await pending.answer
    assert caught.value.commands == (command.id,)


@pytest.mark.parametrize("how", ["returned", "misrouted"])
async def test_after_a_resharding_the_shards_are_learned_anew(how: str, answers: Answers) -> None:
    made = Post(Any, None, answers, None)  # type: ignore[arg-type]
    line = await attached(made, Line())
    command = delete(next(f"cn-{n}" for n in range(99) if shard_of(f"cn-{n}", 16) != shard_of(f"cn-{n}", 8)))
    line.shards = 8
    if how == "returned":
        line.refusals.append(PublishError.__new__(PublishError))
    (pending,) = sent(made, command)
    await line.until(1)
    if how == "misrouted":
        answers.give(command, "dead", dead_letter={"reason": "misrouted", "detail": "…"})
    await line.until(2)
    assert [key for key, _ in line.published] == [command_key(shard_of(command.node, shards)) for shards in (16, 8)]
    answers.give(command, "applied")
    assert (await pending.answer).outcome.status == "applied"
    await made.close()


@pytest.mark.parametrize("shards", [1, 2, 15, 16, 17, 64, 99, 100])
async def test_the_number_of_shards_is_learned_from_the_queues(shards: int) -> None:
    assert await learned(Line(shards)) == shards  # type: ignore[arg-type]


async def test_a_broker_without_command_queues_is_told_apart() -> None:
    with pytest.raises(UnroutableError, match="topology apply"):
        await learned(Line(0))  # type: ignore[arg-type]


async def test_no_more_than_the_window_is_under_way_and_what_is_parked_does_not_count(
    posted: Post, answers: Answers
) -> None:
    line = await attached(posted, Line())
    commands = [delete() for _ in range(10)]
    many = Many(posted, 2, SECONDS, answered=True, on_parked=None)
    finished: list[Any] = []

    async def read() -> None:
        async for pending in many.run(map(Message.of, commands)):
            finished.append(pending.message.id)  # noqa: PERF401 - what is read so far counts

    reading = asyncio.ensure_future(read())
    await line.until(2)
    assert len(line.published) == 2
    answers.give(commands[0], "parked")
    await line.until(3)
    for number in range(1, 10):
        await line.until(number + 1)
        answers.give(commands[number], "applied")
    answers.give(commands[0], "applied")
    await reading
    assert finished == [command.id for command in [*commands[1:], commands[0]]]
