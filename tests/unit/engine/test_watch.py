from __future__ import annotations

import asyncio
from typing import Any

from structlog.testing import capture_logs

from tests.unit.engine.doubles import Hypervisors, Ledger, Rounds, parked, port, running
from worker.accounting.rules.looks import Look
from worker.engine.lanes import Batch, Lanes
from worker.engine.watch import Looking, Watch
from worker.telemetry.metrics import Metrics

SHARDS = 4


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A watch over a fleet in which every node belongs to this worker. A round passes one second."""

    def __init__(self, *nodes: str, interval: float = 600.0, calls: int = 100, watched: int = 100) -> None:
        self.ledger, self.hypervisors, self.lanes = Ledger(), Hypervisors(), Lanes()
        self.ledger.hypervisor_of = dict.fromkeys(nodes, "qemu+tls://host/system")
        self.rounds, self.clock, self.metrics = Rounds(), Clock(), Metrics("0")
        self.leases: list[set[str]] = []
        self.watch = Watch(
            port(self.ledger),
            port(self.hypervisors),
            self.lanes,
            port(self),
            self.metrics,
            Looking(interval, calls, 1000.0, watched),
            self.clock,
            self.rounds.pause,
        )
        self.watch.serve(range(SHARDS), SHARDS)

    def wake(self, nodes: set[str]) -> None:
        """As leases do."""
        self.leases.append(nodes)

    async def round(self, seconds: float = 1.0) -> None:
        self.clock.now += seconds
        await self.rounds.round()
        for _ in range(5):
            await asyncio.sleep(0)

    async def taken(self) -> Batch:
        async with asyncio.timeout(20):
            batch = await self.lanes.take(1000)
        assert batch is not None
        self.lanes.done(batch)
        return batch


async def test_each_node_is_looked_at_by_itself_and_what_was_seen_goes_to_the_front_of_its_lane() -> None:
    scene = Scene("cn-1", "cn-2")
    async with running(scene.watch.run()):
        await scene.round()
        await scene.round()
        batch = await scene.taken()
    assert {item.command.node for item in batch.items} == {"cn-1", "cn-2"}
    assert all(isinstance(item.command, Look) and item.delivery is None for item in batch.items)
    assert {node: sight.listing for node, sight in batch.facts.sights.items()} == {"cn-1": [], "cn-2": []}
    assert set(batch.facts.observations) == {"cn-1", "cn-2"}


async def test_nodes_of_other_shards_are_left_to_other_workers_and_given_up_with_their_shard() -> None:
    scene = Scene(*(f"cn-{number}" for number in range(40)))
    async with running(scene.watch.run()):
        await scene.round()
        assert len(scene.hypervisors.watched) == 40
        scene.watch.serve([0], SHARDS)
        await scene.round()
        some = set(scene.hypervisors.watched)
        assert 0 < len(some) < 40
        scene.watch.serve([], SHARDS)
        await scene.round()
        assert scene.hypervisors.watched == set()


async def test_a_node_whose_policy_says_never_is_not_looked_at() -> None:
    scene = Scene("cn-1", "cn-2")
    scene.ledger.intervals = {"cn-1": 0}
    async with running(scene.watch.run()):
        for _ in range(3):
            await scene.round()
    assert set(scene.hypervisors.asked) == {"cn-2"}


async def test_no_more_hypervisors_are_listened_to_than_the_setting_says_and_it_is_told_once() -> None:
    scene = Scene("cn-1", "cn-2", "cn-3", watched=2)
    with capture_logs() as logs:
        async with running(scene.watch.run()):
            for _ in range(12):
                await scene.round()
    assert len(scene.hypervisors.watched) == 2
    assert len([line for line in logs if line["event"].startswith("more hypervisors")]) == 1


async def test_a_driver_without_events_is_told_once() -> None:
    scene = Scene("cn-1", interval=1.0)
    scene.hypervisors.mute = {"cn-1"}
    with capture_logs() as logs:
        async with running(scene.watch.run()):
            for _ in range(10):
                await scene.round()
    assert len(scene.hypervisors.asked) > 3
    assert [line["node"] for line in logs if "on schedule alone" in line["event"]] == ["cn-1"]


async def test_something_that_happens_is_looked_at_soon_and_wakes_what_waits_there() -> None:
    scene = Scene("cn-1", "cn-2")
    async with running(scene.watch.run()):
        await scene.round()
        await scene.round()
        before = len(scene.hypervisors.asked)
        for _ in range(20):
            scene.watch.happened("cn-2")
        await scene.round(0.2)
        await scene.round(0.2)
        await scene.round(0.2)
        assert scene.hypervisors.asked[before:] == ["cn-2"]
    assert scene.ledger.woken == scene.leases == [{"cn-2"}]


async def test_what_waits_is_woken_late_rather_than_never_while_the_database_is_away() -> None:
    scene = Scene("cn-1")
    async with running(scene.watch.run()):
        await scene.round()
        scene.ledger.away = True
        scene.watch.happened("cn-1")
        await scene.round()
        scene.ledger.away = False
        await scene.round()
    assert scene.ledger.woken == scene.leases == [{"cn-1"}]


async def test_a_turn_that_comes_while_the_database_is_away_comes_again_once_it_is_back() -> None:
    scene = Scene("cn-1")
    async with running(scene.watch.run()):
        for _ in range(3):
            await scene.round()
        asked = len(scene.hypervisors.asked)
        scene.watch.happened("cn-1")
        await scene.round(0.1)
        scene.ledger.away = True
        await scene.round()
        scene.ledger.away = False
        await scene.round()
        await scene.round()
    assert len(scene.hypervisors.asked) == asked + 1


async def test_a_host_that_falls_silent_and_one_that_is_back_are_told_once_with_what_waits() -> None:
    scene = Scene("cn-1")
    scene.ledger.rows = {"cn-1": [parked("cn-1", 1), parked("cn-1", 2)]}
    scene.hypervisors.silent = {"cn-1"}
    with capture_logs() as logs:
        async with running(scene.watch.run()):
            await scene.round()
            scene.watch.fell_silent("cn-1", "qemu+tls://host/system", "refused")
            await scene.round()
            scene.watch.came_back("cn-1", "qemu+tls://host/system")
            await scene.round()
    told = [(line["event"], line["waiting"]) for line in logs if line["event"].startswith("a hypervisor")]
    assert told == [("a hypervisor does not answer", 2), ("a hypervisor answers again", 2)]
    assert scene.ledger.woken == [{"cn-1"}]


async def test_a_silent_host_is_knocked_at_until_it_is_back_and_then_looked_at() -> None:
    scene = Scene("cn-1")
    scene.hypervisors.silent = {"cn-1"}
    async with running(scene.watch.run()):
        await scene.round()
        scene.watch.fell_silent("cn-1", "qemu+tls://host/system", "refused")
        for _ in range(12):
            await scene.round()
        knocks, asked = len(scene.hypervisors.knocked), len(scene.hypervisors.asked)
        assert 3 <= knocks <= 5, "every three seconds"
        scene.hypervisors.silent = set()
        for _ in range(5):
            await scene.round()
        assert len(scene.hypervisors.asked) > asked


async def test_a_host_that_answers_at_another_address_than_it_fell_silent_at_is_back() -> None:
    scene = Scene("cn-1")
    with capture_logs() as logs:
        async with running(scene.watch.run()):
            await scene.round()
            scene.watch.fell_silent("cn-1", "qemu+tls://other/system", "refused")
            for _ in range(20):
                await scene.round()
    assert [line["event"] for line in logs if "again" in line["event"]] == ["a hypervisor answers again"]
    assert len(scene.hypervisors.knocked) <= 1


async def test_hosts_that_hang_do_not_keep_the_others_from_being_looked_at() -> None:
    scene = Scene("cn-1", "cn-2", interval=1.0, calls=1)
    hanging = asyncio.Event()
    plain = scene.hypervisors.inventory

    async def inventory(node: str, uri: str) -> Any:
        if node == "cn-1":
            await hanging.wait()
        return await plain(node, uri)

    scene.hypervisors.silent = {"cn-1"}
    async with running(scene.watch.run()):
        hanging.set()
        for _ in range(8):
            await scene.round()
        hanging.clear()
        scene.hypervisors.inventory = inventory  # type: ignore[method-assign] # from now on it hangs
        scene.hypervisors.asked.clear()
        for _ in range(8):
            await scene.round()
        assert scene.hypervisors.asked.count("cn-2") > 3


async def test_a_host_known_not_to_answer_leaves_nothing_on_its_lane() -> None:
    scene = Scene("cn-1", interval=1.0)
    scene.hypervisors.silent = {"cn-1"}
    async with running(scene.watch.run()):
        await scene.round()
        await scene.round()
        (item,) = (await scene.taken()).items
        assert isinstance(item.command, Look), "once, for the node to be known as unreachable"
        standings = await scene.ledger.standings(["cn-1"])
        seen = standings["cn-1"]

        async def unreachable(nodes: Any) -> dict[str, Any]:
            return {node: type(seen)(1, seen.address, False, 0) for node in nodes}

        scene.ledger.standings = unreachable  # type: ignore[method-assign]
        for _ in range(5):
            await scene.round()
        assert scene.lanes.depth == 0
