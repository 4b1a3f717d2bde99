from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.schedule import Schedule


def schedule(nodes: int, interval: float, rate: float = 1e6) -> Schedule:
    made = Schedule(rate, random.Random(7))
    made.follow({f"cn-{number}": interval for number in range(nodes)}, 0.0)
    return made


def test_every_node_has_one_turn_in_each_interval_and_they_are_spread_evenly() -> None:
    made = schedule(1000, 600.0, rate=1.0)
    turns: Counter[str] = Counter()
    most = 0
    for second in range(6000):
        taken = made.due(float(second), 1000)
        turns.update(taken)
        most = max(most, len(taken))
    assert set(turns) == {f"cn-{number}" for number in range(1000)}
    assert all(9 <= count <= 11 for count in turns.values())
    assert most < 12, "1000 in 600 s are 1.7 in a second on average"
    assert made.skipped == 0


def test_new_nodes_have_their_first_turn_as_soon_as_the_rate_allows() -> None:
    made = schedule(500, 600.0, rate=50.0)
    first = [len(made.due(float(second), 1000)) for second in range(1, 11)]
    assert sum(first) == 500
    assert max(first) < 100


@given(st.integers(1, 50), st.floats(3.0, 1000.0), st.floats(0.0, 5000.0))
def test_a_turn_that_comes_too_late_is_left_out_and_never_made_up_for(
    nodes: int, interval: float, pause: float
) -> None:
    made = schedule(nodes, interval)
    made.due(1.0, nodes)
    turns: Counter[str] = Counter(made.due(1.0 + pause, 10 * nodes))
    turns.update(made.due(1.0 + pause, 10 * nodes))
    assert all(count == 1 for count in turns.values())


def test_what_cannot_begin_for_want_of_room_is_skipped_and_not_queued() -> None:
    made = schedule(100, 10.0)
    taken = [node for tick in range(1, 200) for node in made.due(tick / 10, 1 if tick % 10 == 0 else 0)]
    assert len(taken) <= 20
    assert made.skipped > 100


def test_something_that_happens_hurries_a_node_once_for_a_burst() -> None:
    made = schedule(3, 600.0, rate=0.01)
    for event in range(5):
        made.hurry("cn-1", 1.0 + event / 50)
    assert made.due(1.2, 10) == []
    assert made.due(1.31, 10) == ["cn-1"]
    assert made.due(1.4, 10) == []
    made.hurry("cn-1", 1.5)
    assert made.due(1.9, 10) == [], "a node where something happens all the time is looked at once a second"
    assert made.due(2.4, 10) == ["cn-1"]


def test_what_happens_while_a_node_is_looked_at_is_looked_at_after_it() -> None:
    made = schedule(1, 600.0, rate=0.01)
    made.hurry("cn-0", 1.0)
    assert made.due(1.5, 10, busy={"cn-0"}) == []
    assert made.due(1.6, 10) == ["cn-0"]


def test_a_node_that_goes_or_is_never_to_be_looked_at_has_no_turn() -> None:
    made = schedule(2, 1.0)
    made.hurry("cn-0", 0.0)
    assert made.follow({"cn-1": 0.0}, 0.0) == {"cn-0", "cn-1"}
    made.hurry("cn-1", 0.0)
    assert made.due(100.0, 10) == []


def test_another_interval_holds_from_now_on() -> None:
    made = schedule(1, 600.0)
    made.due(1.0, 1)
    made.follow({"cn-0": 5.0}, 2.0)
    assert made.due(7.0, 1) == ["cn-0"]


def test_what_is_to_be_looked_at_later_is_looked_at_now_if_something_happens_meanwhile() -> None:
    made = schedule(1, 600.0, rate=0.01)
    made.hurry("cn-0", 1.0, after=20.0)
    assert made.due(5.0, 10) == []
    made.hurry("cn-0", 5.0)
    assert made.due(5.5, 10) == ["cn-0"]
    assert made.due(25.0, 10) == []
