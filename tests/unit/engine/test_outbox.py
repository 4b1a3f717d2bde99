from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from schemas import Audit
from schemas.backoff import Backoff
from worker.engine.intake import Item
from worker.engine.outbox import _KEPT_BATCHES, Outbox
from worker.engine.outcomes import Rendered
from worker.engine.ports import (
    Broker,
    BrokerUnavailable,
    DeadLetter,
    Delivery,
    Ledger,
    NotConfirmed,
    OutcomeRecord,
    Outgoing,
    Reply,
    Unpublished,
)
from worker.engine.retries import ATTEMPTS, MOST, MOST_OF_TARGET, Refused, Retries
from worker.telemetry.metrics import Metrics

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BATCH, OTHER = UUID(int=1000), UUID(int=1001)


class Signalled:
    """Tells those who wait that something happened here."""

    def __init__(self) -> None:
        self._happened = asyncio.Event()

    def happened(self) -> None:
        self._happened.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._happened.clear()
                await self._happened.wait()


class FakeBroker(Signalled):
    """Takes messages but for those that ``refuses`` or ``loses`` names by the key they go to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.taken: list[str] = []
        self.settled: list[Delivery] = []
        self.refuses: set[str] = set()
        self.loses: set[str] = set()
        self.too_large: set[str] = set()
        self.away = False

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        await asyncio.sleep(0)
        keys = [message.routing_key for message in messages]
        self.calls.append(keys)
        self.happened()
        if self.away:
            raise BrokerUnavailable("away")
        failure = NotConfirmed(len(messages))
        for message in messages:
            for names, into in (
                (self.refuses, failure.refused),
                (self.loses, failure.unanswered),
                (self.too_large, failure.too_large),
            ):
                if message.routing_key in names:
                    into.append(message)
                    break
            else:
                self.taken.append(message.routing_key)
        if failure.messages:
            raise failure

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        self.settled += deliveries
        self.happened()


class FakeLedger(Signalled):
    """Rows of the outbox by id: the commands whose outcomes may not be published, and whose they are for now."""

    def __init__(self, rows: Mapping[UUID, Sequence[int]]) -> None:
        super().__init__()
        self.rows = {outbox: [UUID(int=number) for number in numbers] for outbox, numbers in rows.items()}
        self.leased: dict[UUID, float] = {}

    async def unpublished(self, _age: float, _limit: int) -> list[Unpublished]:
        return [
            Unpublished(outbox, [_answer(command) for command in commands])
            for outbox, commands in self.rows.items()
            if not self.leased.get(outbox)
        ]

    async def published(self, outboxes: Sequence[UUID]) -> None:
        for outbox in outboxes:
            del self.rows[outbox]
        self.happened()

    async def narrow_unpublished(self, missing: Mapping[UUID, Sequence[UUID]], seconds: float) -> None:
        for outbox, commands in missing.items():
            self.rows[outbox] = list(commands)
            self.leased[outbox] = seconds
        self.happened()


def _answer(command: UUID) -> OutcomeRecord:
    return OutcomeRecord(command, command, "audit", "applied", "cn-1", None, NOW, (), Reply(f"to-{command.int}"), "{}")


def outcome(number: int, *, tag: int = 0) -> tuple[Item, Rendered]:
    command = Audit(version=1, id=UUID(int=number), node=f"cn-{number}", kind="audit", issued_at=NOW)
    delivery = Delivery(0, b"{}", tag or number, None, False, 0.0)
    item = Item(command, UUID(int=number), delivery, reply=Reply(f"to-{number}"))
    return item, Rendered("audit", "applied", command.node, "{}")


def keys(*numbers: int) -> list[str]:
    return [key for number in numbers for key in (f"to-{number}", f"audit.applied.cn-{number}")]


class Scene:
    def __init__(self, rows: Mapping[UUID, Sequence[int]], retries: Retries[Any] | None = None) -> None:
        self.broker, self.ledger = FakeBroker(), FakeLedger(rows)
        self.metrics = Metrics("0")
        soon: Retries[Any] = Retries(Backoff(0.0, 0.0))
        self.outbox = Outbox(
            cast(Broker, self.broker),
            cast(Ledger, self.ledger),
            self.metrics,
            5.0,
            soon if retries is None else retries,
        )

    def counted(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"nodeledger_{name}_total") or 0.0


@asynccontextmanager
async def running(*services: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(service) for service in services]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


NEVER = Backoff(1e9, 1e9)


async def test_what_is_refused_leaves_its_batch_and_its_neighbours_are_published_once() -> None:
    scene = Scene({BATCH: [1, 2], OTHER: [3]}, Retries(NEVER))
    scene.broker.refuses = {"to-1"}
    async with running(scene.outbox.publish(), scene.outbox.retry(), scene.outbox.tidy()):
        scene.outbox.add(BATCH, [outcome(1), outcome(2)])
        scene.outbox.add(OTHER, [outcome(3)])
        await scene.ledger.until(lambda: scene.ledger.rows == {BATCH: [UUID(int=1)]})
    assert scene.broker.taken == [key for key in keys(1, 2, 3) if key != "to-1"]
    assert scene.broker.calls == [keys(1, 2, 3)]
    assert scene.ledger.leased[BATCH] > 0
    assert (scene.outbox.refused, scene.outbox.unpublished) == (1, 0)


async def test_what_is_refused_is_tried_alone_until_it_is_taken_and_its_batch_is_done_then() -> None:
    scene = Scene({BATCH: [1, 2]})
    scene.broker.refuses = {"to-1"}
    async with running(scene.outbox.publish(), scene.outbox.retry(), scene.outbox.tidy()):
        scene.outbox.add(BATCH, [outcome(1), outcome(2)])
        await scene.broker.until(lambda: len(scene.broker.calls) == 3)
        scene.broker.refuses = set()
        await scene.ledger.until(lambda: not scene.ledger.rows)
    assert scene.broker.calls[1:3] == [["to-1"], ["to-1"]]
    assert sorted(scene.broker.taken) == sorted(keys(1, 2))
    assert scene.counted("outcomes_given_up") == 0


async def test_what_is_refused_is_given_up_after_a_bounded_number_of_attempts() -> None:
    scene = Scene({BATCH: [1]})
    scene.broker.refuses = {"to-1"}
    async with running(scene.outbox.publish(), scene.outbox.retry(), scene.outbox.tidy()):
        scene.outbox.add(BATCH, [outcome(1)])
        await scene.ledger.until(lambda: not scene.ledger.rows)
    assert sum("to-1" in call for call in scene.broker.calls) == ATTEMPTS
    assert scene.counted("outcomes_refused") == ATTEMPTS
    assert scene.counted("outcomes_given_up") == 1
    assert scene.outbox.refused == 0


async def test_what_is_too_large_is_sent_once_and_never_again() -> None:
    scene = Scene({BATCH: [1, 2]})
    scene.broker.too_large = {"to-1"}
    async with running(scene.outbox.publish(), scene.outbox.retry(), scene.outbox.tidy()):
        scene.outbox.add(BATCH, [outcome(1), outcome(2)])
        await scene.ledger.until(lambda: not scene.ledger.rows)
    assert scene.broker.calls == [keys(1, 2)]
    assert scene.counted("outcomes_given_up") == 1


async def test_what_nobody_answered_for_is_published_again_and_nothing_else() -> None:
    scene = Scene({BATCH: [1, 2], OTHER: [3]})
    scene.broker.loses = {"to-2", "to-3"}
    async with running(scene.outbox.publish(), scene.outbox.tidy()):
        scene.outbox.add(BATCH, [outcome(1), outcome(2)])
        scene.outbox.add(OTHER, [outcome(3)])
        await scene.broker.until(lambda: len(scene.broker.calls) == 2)
        assert scene.ledger.rows.keys() == {BATCH, OTHER}
        scene.broker.loses = set()
        await scene.ledger.until(lambda: not scene.ledger.rows)
    assert scene.broker.calls[1:]
    assert all(call == ["to-2", "to-3"] for call in scene.broker.calls[1:])
    assert sorted(scene.broker.taken) == sorted(keys(1, 2, 3))


async def test_a_broker_that_is_away_uses_up_no_attempt() -> None:
    scene = Scene({BATCH: [1]})
    scene.broker.refuses = {"to-1"}
    async with running(scene.outbox.publish(), scene.outbox.retry(), scene.outbox.tidy()):
        scene.outbox.add(BATCH, [outcome(1)])
        await scene.broker.until(lambda: len(scene.broker.calls) == 1)
        scene.broker.refuses, scene.broker.away = set(), True
        await scene.broker.until(lambda: len(scene.broker.calls) > 2 * ATTEMPTS)
        assert scene.outbox.refused == 1
        scene.broker.away = False
        await scene.ledger.until(lambda: not scene.ledger.rows)
    assert sorted(scene.broker.taken) == sorted(keys(1))


async def test_no_more_than_a_bounded_number_waits_for_one_target_and_in_all() -> None:
    retries: Retries[int] = Retries(NEVER)
    one = [Refused(Outgoing("", "full", b""), number) for number in range(MOST_OF_TARGET + 1)]
    assert [retries.add(refused, 0.0) for refused in one] == [True] * MOST_OF_TARGET + [False]
    for number in range(MOST - MOST_OF_TARGET):
        assert retries.add(Refused(Outgoing("", f"full-{number}", b""), number), 0.0)
    assert not retries.add(Refused(Outgoing("", "another", b""), 0), 0.0)
    retries.drop(one[0])
    assert retries.add(Refused(Outgoing("", "another", b""), 0), 0.0)
    assert len(retries) == MOST


async def test_one_exchange_is_one_target_whatever_the_key() -> None:
    kin = [Refused(Outgoing("exchange", f"claim.applied.cn-{number}", b""), 0) for number in range(2)]
    assert len({refused.target for refused in kin}) == 1


async def test_what_is_refused_is_left_to_other_workers_when_this_one_ends() -> None:
    scene = Scene({BATCH: [1, 2]}, Retries(NEVER))
    scene.broker.refuses = {"to-1"}
    async with running(scene.outbox.publish(), scene.outbox.retry()):
        scene.outbox.add(BATCH, [outcome(1), outcome(2)])
        async with asyncio.timeout(20):
            await scene.outbox.flushed()
    assert scene.ledger.rows == {BATCH: [UUID(int=1)]}
    assert scene.ledger.leased == {BATCH: 0.0}


async def test_the_sweeper_sets_refused_messages_aside_and_lets_the_rest_go() -> None:
    scene = Scene({BATCH: [1, 2], OTHER: [3]}, Retries(NEVER))
    scene.broker.refuses = {"to-1"}
    await scene.outbox.sweep_some()
    assert scene.ledger.rows == {BATCH: [UUID(int=1)]}
    assert scene.counted("outbox_swept") == 5
    scene.ledger.leased.clear()
    await scene.outbox.sweep_some()
    assert len(scene.broker.calls) == 2, "what is in this worker's hands is not swept by it"
    assert scene.broker.calls[1] == []


async def test_what_the_sweeper_got_no_answer_for_stays_in_the_outbox() -> None:
    scene = Scene({BATCH: [1, 2]})
    scene.broker.refuses, scene.broker.loses = {"to-1"}, {"to-2"}
    async with running(scene.outbox.retry(), scene.outbox.tidy()):
        with pytest.raises(BrokerUnavailable):
            await scene.outbox.sweep_some()
        scene.broker.refuses = set()
        await scene.broker.until(lambda: "to-1" in scene.broker.taken)
    assert scene.ledger.rows.keys() == {BATCH}
    assert scene.outbox.take_published() == []


async def test_the_delivery_of_a_duplicate_is_settled_once_its_answer_is_out() -> None:
    scene = Scene({})
    scene.broker.away = True
    again = outcome(1, tag=7)
    async with running(scene.outbox.publish()):
        scene.outbox.add(None, [again], [again[0]])
        await scene.broker.until(lambda: scene.broker.calls)
        assert not scene.broker.settled
        scene.broker.away = False
        await scene.broker.until(lambda: scene.broker.settled)
    assert [delivery.tag for delivery in scene.broker.settled] == [7]
    assert scene.broker.taken == keys(1)


async def test_a_duplicate_whose_answer_is_refused_holds_up_no_acknowledgement() -> None:
    scene = Scene({}, Retries(NEVER))
    scene.broker.refuses = {"to-1"}
    again = outcome(1, tag=7)
    async with running(scene.outbox.publish()):
        scene.outbox.add(None, [again], [again[0]])
        await scene.broker.until(lambda: scene.broker.settled)
    assert scene.outbox.refused == 1


async def test_the_answer_to_a_duplicate_is_not_dropped_however_many_batches_wait() -> None:
    scene = Scene({})
    again, fresh = outcome(1, tag=7), outcome(2)
    for _ in range(_KEPT_BATCHES):
        scene.outbox.add(OTHER, [outcome(3)])
    scene.outbox.add(BATCH, [again, fresh], [again[0]])
    async with running(scene.outbox.publish()):
        await scene.broker.until(lambda: scene.broker.settled)
    assert "to-1" in scene.broker.taken
    assert "to-2" not in scene.broker.taken, "that one is left to the sweeper"
    assert BATCH not in scene.outbox.take_published()


async def test_a_refused_message_is_let_go_once_its_sender_is_told() -> None:
    scene = Scene({})
    scene.broker.away = True
    delivery = Delivery(0, b"{}", 9, None, False, 0.0, reply_to="sender")
    async with running(scene.outbox.publish()):
        scene.outbox.answer_dead(DeadLetter(b"{}", "malformed", "no", UUID(int=1), "cn-1", "claim"), delivery)
        await scene.broker.until(lambda: scene.broker.calls)
        assert not scene.broker.settled
        scene.broker.away = False
        await scene.broker.until(lambda: scene.broker.settled)
    assert scene.broker.taken == ["sender", "claim.dead.cn-1"]


@pytest.mark.parametrize(
    ("letter", "told"),
    [
        (DeadLetter(b"", "malformed", "no", None, "cn-1", "claim"), []),
        (DeadLetter(b"", "unknown_kind", "no", UUID(int=1), "cn-1", "clam"), ["sender"]),
        (DeadLetter(b"", "malformed", "no", UUID(int=1), None, "claim"), ["sender"]),
        (DeadLetter(b"", "id_reuse", "no", UUID(int=1), "cn-1", "claim"), ["sender"]),
    ],
)
async def test_subscribers_are_told_only_what_is_surely_about_that_command(letter: DeadLetter, told: list[str]) -> None:
    scene = Scene({})
    async with running(scene.outbox.publish()):
        scene.outbox.answer_dead(letter, Delivery(0, b"", 9, None, False, 0.0, reply_to="sender"))
        await scene.broker.until(lambda: scene.broker.settled)
    assert scene.broker.taken == told


async def test_the_sender_of_what_no_worker_had_is_found_in_its_letter() -> None:
    scene = Scene({})
    headers = {"x-nodeledger-reply-to": "sender", "x-nodeledger-correlation-id": "c"}
    letter = DeadLetter(b"{}", "expired_in_queue", "no", UUID(int=1), "cn-1", "claim", headers, untold=True)
    async with running(scene.outbox.publish()):
        scene.outbox.answer_dead(letter)
        await scene.broker.until(lambda: len(scene.broker.taken) == 2)
    assert scene.broker.taken == ["sender", "claim.dead.cn-1"]
    assert not scene.broker.settled


async def test_a_reply_queue_that_never_confirms_delays_no_other_attempt() -> None:
    scene = Scene({BATCH: [1, 2]})
    scene.broker.refuses = {"to-1", "to-2"}
    publish, stuck = scene.broker.publish, asyncio.Event()

    async def holding(messages: Sequence[Outgoing]) -> None:
        if scene.broker.calls and "to-1" in {message.routing_key for message in messages}:
            await stuck.wait()
        await publish(messages)

    scene.broker.publish = holding  # type: ignore[method-assign]
    async with running(scene.outbox.publish(), scene.outbox.retry(), scene.outbox.tidy()):
        scene.outbox.add(BATCH, [outcome(1), outcome(2)])
        await scene.broker.until(lambda: scene.broker.calls)
        scene.broker.refuses = set()
        await scene.broker.until(lambda: "to-2" in scene.broker.taken)
        assert "to-1" not in scene.broker.taken
        stuck.set()
        await scene.ledger.until(lambda: not scene.ledger.rows)
