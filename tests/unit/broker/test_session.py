from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from worker.broker.session import PAUSE_MAX_SECONDS, PAUSE_MIN_SECONDS, pause_before


@given(attempt=st.integers(0, 10_000), seed=st.integers())
def test_the_pause_before_connecting_again_stays_between_its_bounds(attempt: int, seed: int) -> None:
    assert PAUSE_MIN_SECONDS <= pause_before(attempt, random.Random(seed)) <= PAUSE_MAX_SECONDS


def test_many_clients_do_not_come_back_at_the_same_time() -> None:
    pauses = sorted(pause_before(10, random.Random(seed)) for seed in range(1000))
    assert pauses[100] < 2
    assert pauses[900] > 8
