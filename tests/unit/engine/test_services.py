from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.unit.engine.doubles import NOW, Broker, Hypervisors, Ledger, Members, Rounds, audit, parked, port, running
from worker.engine import shards as shards_module
from worker.engine.dead_letters import DeadLetters
from worker.engine.intake import Intake, Refused
from worker.engine.lanes import Lanes
from worker.engine.leases import Leases
from worker.engine.outbox import Outbox
from worker.engine.outcomes import Rendered
from worker.engine.parking import Intervals, ParkedProbes
from worker.engine.ports import Delivery, LedgerUnavailable, OutcomeRecord, Reply, Unpublished
from worker.engine.send_queue import _BACKOFF, SendQueue
from worker.engine.services import Engine, Options
from worker.engine.shards import keep_share
from worker.engine.watch import Looking
from worker.telemetry.metrics import Metrics

ME, OTHER = UUID(int=1), UUID(int=2)


class Sending:
    """A queue whose broker answers for what it is told to."""

    def __init__(self, at_once: int = 3) -> None:
        self.calls: list[list[int]] = []
        self.answers: Callable[[int], bool] = lambda _one: True
        self.rounds = Rounds()
        self.queue: SendQueue[int] = SendQueue("numbers", self._send, at_once, self.rounds.pause)

    async def _send(self, some: Sequence[int]) -> tuple[list[int], str | None]:
        self.calls.append(list(some))
        left = [one for one in some if not self.answers(one)]
        return left, "away" if left else None


async def test_what_is_added_is_sent_in_order_and_so_many_at_once() -> None:
    sending = Sending()
    for number in range(7):
        sending.queue.add(number)
    async with running(sending.queue.run()), asyncio.timeout(20):
        await sending.queue.flushed()
    assert sending.calls == [[0, 1, 2], [3, 4, 5], [6]]


async def test_what_the_broker_did_not_answer_for_stays_first_and_in_order() -> None:
    sending = Sending()
    sending.answers = lambda one: one == 1
    for number in range(5):
        sending.queue.add(number)
    async with running(sending.queue.run()):
        await sending.rounds.paused()
        assert list(sending.queue.waiting) == [0, 2, 3, 4]
        await sending.rounds.round()
    assert sending.calls == [[0, 1, 2], [0, 2, 3]]


async def test_pauses_grow_with_each_failure_and_begin_anew_after_a_success() -> None:
    sending = Sending()
    sending.answers = lambda _one: False
    sending.queue.add(1)
    async with running(sending.queue.run()):
        for _ in range(11):
            await sending.rounds.round()
        assert max(sending.rounds.asked[6:]) > 0.5
        assert all(seconds <= _BACKOFF.longest for seconds in sending.rounds.asked)
        sending.answers = lambda one: one != 2
        before = len(sending.rounds.asked)
        sending.rounds.go_on()
        async with asyncio.timeout(20):
            await sending.queue.flushed()
        sending.queue.add(2)
        await sending.rounds.paused()
    assert sending.rounds.asked[before] <= 2 * _BACKOFF.shortest


async def test_a_queue_is_flushed_only_once_nothing_waits() -> None:
    sending = Sending()
    sending.answers = lambda _one: False
    sending.queue.add(1)
    flushed = asyncio.create_task(sending.queue.flushed())
    async with running(sending.queue.run()):
        await sending.rounds.round()
        assert not flushed.done()
        sending.answers = lambda _one: True
        sending.rounds.go_on()
        async with asyncio.timeout(20):
            await flushed


async def test_a_command_is_recorded_as_dead_only_once_its_letter_is_safe() -> None:
    broker, lanes, rounds = Broker(), Lanes(), Rounds()
    dead_letters = DeadLetters(port(broker), lanes, Metrics("0"), pause=rounds.pause)
    broker.away = {"dead_letter"}
    dead_letters.dead_letter(item := audit("cn-1"), "poison", "why")
    async with running(dead_letters.run()):
        await rounds.paused()
        assert (lanes.depth, item.dead_lettered) == (0, None)
        broker.away = set()
        rounds.go_on()
        async with asyncio.timeout(20):
            batch = await lanes.take(10)
    assert batch is not None
    assert [one.dead_lettered for one in batch.items] == [("poison", "why")]
    assert [letter.command for letter in broker.letters] == [item.command.id]


async def test_a_refused_delivery_is_let_go_only_once_its_letter_is_safe() -> None:
    broker, rounds = Broker(), Rounds()
    dead_letters = DeadLetters(port(broker), Lanes(), Metrics("0"), pause=rounds.pause)
    broker.away = {"dead_letter"}
    dead_letters.refuse(Refused(Delivery(0, b"{", 7, None, False, 0.0), "malformed", "no"))
    async with running(dead_letters.run()):
        await rounds.paused()
        assert not broker.settled
        broker.away = set()
        rounds.go_on()
        async with asyncio.timeout(20):
            await dead_letters._queue.flushed()
    assert broker.settled == [7]
    assert dead_letters.waiting == []


class Publishing:
    def __init__(self) -> None:
        self.broker, self.ledger, self.rounds = Broker(), Ledger(), Rounds()
        self.outbox = Outbox(port(self.broker), port(self.ledger), Metrics("0"), 5.0, pause=self.rounds.pause)

    async def published(self, outbox: UUID) -> None:
        self.outbox.add(outbox, [(audit("cn-1"), Rendered("audit", "applied", "cn-1", "{}"))])
        async with running(self.outbox.publish()), asyncio.timeout(20):
            await self.outbox._queue.flushed()


async def test_an_idle_worker_notes_what_is_published_once() -> None:
    scene = Publishing()
    await scene.published(OTHER)
    async with running(scene.outbox.tidy()):
        await scene.rounds.round()
        await scene.rounds.round()
    assert scene.ledger.noted == [OTHER]


async def test_what_could_not_be_noted_is_noted_later() -> None:
    scene = Publishing()
    await scene.published(OTHER)
    scene.ledger.away = True
    async with running(scene.outbox.tidy()):
        await scene.rounds.round()
        scene.ledger.away = False
        await scene.rounds.round()
    assert scene.ledger.noted == [OTHER]


def left(number: int) -> Unpublished:
    command = UUID(int=number)
    record = OutcomeRecord(command, command, "audit", "applied", "cn-1", None, NOW, (), Reply(f"to-{number}"), "{}")
    return Unpublished(UUID(int=1000 + number), [record])


async def test_a_round_of_the_sweeper_publishes_all_that_is_left_and_outlives_absences() -> None:
    scene = Publishing()
    scene.ledger.left = [left(number) for number in range(40)]
    scene.ledger.away = True
    async with running(scene.outbox.sweep()):
        await scene.rounds.round()
        scene.ledger.away, scene.broker.away = False, {"publish"}
        await scene.rounds.round()
        assert not scene.ledger.noted
        scene.broker.away = set()
        await scene.rounds.round()
    assert [key for key in scene.broker.sent if key.startswith("to-")] == [f"to-{number}" for number in range(40)]
    assert len(scene.ledger.noted) == 40
    assert all(2.5 <= seconds <= 7.5 for seconds in scene.rounds.asked)


class Probing:
    def __init__(self, silent: Sequence[str] = ()) -> None:
        self.ledger, self.hypervisors, self.lanes = Ledger(), Hypervisors(silent), Lanes()
        self.rounds, self.metrics = Rounds(), Metrics("0")
        self.probes = ParkedProbes(
            port(self.ledger),
            port(self.hypervisors),
            self.lanes,
            self.metrics,
            Intervals(least=1.0, most=30.0, verify=1.0, deadline=timedelta(hours=1)),
            pause=self.rounds.pause,
        )

    def park(self, node: str, *numbers: int, at: datetime = NOW) -> None:
        self.ledger.rows[node] = [parked(node, number, at) for number in numbers]
        self.ledger.due.append(node)

    async def brought_back(self) -> list[int]:
        async with running(self.probes.run()):
            await self.rounds.round()
        batch = await self.lanes.take(100) if self.lanes.depth else None
        return [] if batch is None else [item.command.id.int for item in batch.items]


async def test_a_node_that_answers_has_its_commands_back_in_order_and_is_asked_again_soon() -> None:
    scene = Probing()
    scene.park("cn-1", 3, 1, 2)
    scene.ledger.hypervisor_of["cn-1"] = "test:///default"
    assert await scene.brought_back() == [3, 1, 2]
    assert scene.ledger.asked_again == {"cn-1": 1.0}


async def test_a_node_that_is_silent_has_back_only_what_has_waited_for_too_long() -> None:
    scene = Probing(silent=["cn-1"])
    scene.park("cn-1", 1, 2)
    scene.ledger.rows["cn-1"][1] = parked("cn-1", 2, datetime.now(UTC))
    scene.ledger.hypervisor_of["cn-1"] = "test:///default"
    assert await scene.brought_back() == [1]
    assert scene.ledger.asked_again == {}, "it is left to the time that doubles"


async def test_a_node_without_a_hypervisor_is_not_asked() -> None:
    scene = Probing()
    scene.park("cn-1", 1, at=datetime.now(UTC))
    assert await scene.brought_back() == [1]
    assert scene.hypervisors.asked == []


async def test_probing_outlives_a_database_that_is_away_and_tidies_now_and_then_only() -> None:
    scene = Probing()
    scene.ledger.away = True
    async with running(scene.probes.run()):
        await scene.rounds.round()
        scene.ledger.away = False
        scene.park("cn-1", 1)
        await scene.rounds.round()
        await scene.rounds.round()
    assert scene.lanes.depth == 1
    assert scene.ledger.forgotten <= 1


async def test_looking_for_leases_outlives_a_database_that_is_away() -> None:
    rounds, looks = Rounds(), []

    class Away(Ledger):
        async def due_leases(self, *_: Any) -> list[Any]:
            looks.append(1)
            raise LedgerUnavailable("away")

    async with running(Leases(port(Away()), Lanes(), pause=rounds.pause).run()):
        await rounds.round()
        await rounds.round()
    assert len(looks) == 2


class Sharing:
    def __init__(self, owners: dict[int, UUID]) -> None:
        self.members, self.broker, self.rounds = Members(owners), Broker(), Rounds()
        self.told: list[str | None] = []
        self.own: list[frozenset[int]] = []

    def run(self) -> Any:
        count = len(self.members.owners)
        return keep_share(
            self.members, port(self.broker), ME, count, self.told.append, self.own.append, self.rounds.pause
        )


async def test_a_worker_steps_behind_each_other_owner_once() -> None:
    scene = Sharing({0: ME, 1: OTHER, 2: OTHER})
    async with running(scene.run()):
        await scene.rounds.round()
        await scene.rounds.round()
        scene.members.owners = {0: OTHER, 1: ME, 2: OTHER}
        await scene.rounds.round()
    assert scene.broker.yielded == [{1, 2}, {0}]
    assert [scene.own[0], scene.own[-1]] == [frozenset({0}), frozenset({1})]


async def test_a_worker_that_is_served_a_shard_of_anothers_steps_behind_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Sharing({0: ME, 1: OTHER})
    async with running(scene.run()):
        await scene.rounds.paused()
        scene.broker.serving = {0, 1}
        await scene.rounds.round()
        assert scene.broker.yielded == [{1}], "what it has just left may still be on its way"
        monkeypatch.setattr(shards_module, "_PATIENCE_SECONDS", -1.0)
        await scene.rounds.round()
    assert scene.broker.yielded == [{1}, {1}]


async def test_a_worker_joins_only_once_it_stands_in_line() -> None:
    scene = Sharing({0: ME})
    scene.broker.away = {"in_line"}
    async with running(scene.run()):
        await scene.rounds.round()
        assert scene.members.beats == 0
        scene.broker.away = set()
        await scene.rounds.round()
    assert scene.members.beats >= 1


async def test_the_pool_tells_whether_the_database_answers() -> None:
    scene = Sharing({0: ME})
    scene.members.away = True
    async with running(scene.run()):
        await scene.rounds.paused()
        scene.members.away = False
        await scene.rounds.round()
    assert scene.told == ["away", None]


class Stopping:
    """An engine that is told to stop, on a ledger whose transactions are what the test makes of them."""

    def __init__(self, shutdown_seconds: float = 20.0) -> None:
        self.ledger, self.broker, self.lanes = Ledger(), Broker(), Lanes()
        self.engine = Engine(
            Intake(self.lanes, 1),
            self.lanes,
            port(self.broker),
            port(self.ledger),
            port(Hypervisors()),
            Members({0: ME}),
            Metrics("0"),
            Options(
                worker=ME,
                shards=1,
                batch_limit=10,
                committers=2,
                park_deadline=timedelta(hours=1),
                probe_least=1.0,
                probe_most=30.0,
                verify_seconds=1.0,
                sweep_seconds=5.0,
                shutdown_seconds=shutdown_seconds,
                looking=Looking(0, 1, 1.0, 0),
            ),
        )
        self.stop = asyncio.Event()

    async def ends(self, after: asyncio.Event | None = None) -> None:
        """Tell it to stop, once something has happened, and wait until it has ended with all its tasks."""
        running = asyncio.create_task(self.engine.run(self.stop))
        async with asyncio.timeout(20):
            await (after.wait() if after is not None else asyncio.sleep(0))
            self.stop.set()
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_idle_worker_ends_at_once_with_all_its_services() -> None:
    await Stopping().ends()


async def test_a_worker_publishes_and_notes_what_is_committed_before_it_ends() -> None:
    scene = Stopping()
    scene.engine._outbox.add(OTHER, [(audit("cn-1"), Rendered("audit", "applied", "cn-1", "{}"))])
    await scene.ends()
    assert scene.broker.sent == ["audit.applied.cn-1"]
    assert scene.ledger.noted == [OTHER]


async def test_a_worker_ends_within_its_time_though_the_broker_is_away() -> None:
    scene = Stopping(shutdown_seconds=0.05)
    scene.broker.away = {"publish", "in_line"}
    scene.engine._outbox.add(OTHER, [(audit("cn-1"), Rendered("audit", "applied", "cn-1", "{}"))])
    await scene.ends()
    assert scene.ledger.noted == []


async def test_a_worker_ends_within_its_time_though_the_database_hangs() -> None:
    scene = Stopping(shutdown_seconds=0.05)
    hanging = scene.ledger.hanging = asyncio.Event()
    scene.lanes.add(audit("cn-1"))
    await scene.ends(hanging)


async def test_a_worker_one_of_whose_services_loses_its_cancellation_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Stopping()
    asked = asyncio.Event()

    async def loses_one(_shards: object) -> dict[int, UUID]:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return {}
        raise AssertionError

    monkeypatch.setattr(scene.engine._pool, "assign", loses_one)
    await scene.ends(asked)


async def test_a_service_that_fails_ends_the_worker_and_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Stopping()

    async def fail(*_: object) -> Any:
        raise ValueError("as told")

    monkeypatch.setattr(scene.engine._pool, "assign", fail)
    with pytest.raises(ValueError, match="as told"):
        async with asyncio.timeout(20):
            await scene.engine.run(scene.stop)
    assert asyncio.all_tasks() == {asyncio.current_task()}
