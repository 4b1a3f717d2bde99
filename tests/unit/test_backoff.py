from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from schemas.backoff import Backoff

FULL = Backoff(0.1, 10.0)


@given(failures=st.integers(1, 10_000), seed=st.integers(), jitter=st.floats(0, 1), factor=st.floats(1, 100))
def test_a_pause_stays_between_its_bounds(failures: int, seed: int, jitter: float, factor: float) -> None:
    policy = Backoff(0.1, 10.0, factor=factor, jitter=jitter, chance=random.Random(seed))
    assert 0.1 <= policy.seconds(failures) <= 10.0


def test_many_clients_do_not_come_back_at_the_same_time() -> None:
    pauses = sorted(Backoff(0.1, 10.0, chance=random.Random(seed)).seconds(10) for seed in range(1000))
    assert pauses[100] < 2
    assert pauses[900] > 8


def test_the_ceiling_grows_by_the_factor_with_each_failure() -> None:
    assert [Backoff(1.0, 30.0, factor=3.0, jitter=0.0).seconds(failures) for failures in (1, 2, 3, 4)] == [3, 9, 27, 30]


def test_half_a_jitter_draws_from_the_upper_half() -> None:
    pauses = [Backoff(1.0, 60.0, jitter=0.5).seconds(4) for _ in range(1000)]
    assert 8.0 <= min(pauses) < 9.0
    assert 15.0 < max(pauses) <= 16.0


def test_pauses_repeat_with_the_same_chance() -> None:
    one, other = (Backoff(0.1, 10.0, chance=random.Random(7)) for _ in range(2))
    assert [one.seconds(failures) for failures in range(1, 9)] == [other.seconds(failures) for failures in range(1, 9)]
