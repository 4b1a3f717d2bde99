from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from worker.hypervisor import load as module
from worker.hypervisor.load import LoadReader, percentages

MODES = ("user", "kernel", "iowait", "idle")
TIMES = st.fixed_dictionaries({mode: st.integers(0, 10**18) for mode in MODES})


@given(TIMES, TIMES)
def test_the_shares_of_the_time_spent_add_up_and_are_within_one_of_exact(
    before: dict[str, int], spent: dict[str, int]
) -> None:
    shares = percentages(before, {mode: before[mode] + spent[mode] for mode in before})
    total = sum(spent.values())
    if total == 0:
        assert shares is None
        return
    assert shares is not None
    assert sum(shares) == 100
    assert all(
        abs(share * total - 100 * one) < total
        for share, one in zip(shares, (spent[mode] for mode in MODES), strict=True)
    )


def test_nothing_is_said_of_the_time_before_the_first_reading_nor_across_a_restart() -> None:
    later = {"user": 10, "kernel": 10, "iowait": 0, "idle": 80}
    assert percentages(None, later) is None
    assert percentages(later, None) is None
    assert percentages(later, {**later, "user": 9, "idle": 200}) is None


def test_memory_in_use_is_without_buffers_and_caches(monkeypatch: Any) -> None:
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])

    class Host:
        def __init__(self) -> None:
            self.spent = dict.fromkeys(MODES, 0)

        def cpu_time(self) -> dict[str, int]:
            return dict(self.spent)

        def memory(self) -> dict[str, int]:
            return {"total": 8192, "free": 2048, "buffers": 1024, "cached": 1024}

    host, reader = Host(), LoadReader()
    first = reader.read(cast("Any", host))
    assert first is not None
    assert (first.idle_percent, first.memory_used_mib) == (None, 4)
    host.spent = {"user": 1, "kernel": 1, "iowait": 0, "idle": 2}
    assert reader.read(cast("Any", host)) is first, "a moment later nothing new can be said"
    clock[0] += 60.0
    later = reader.read(cast("Any", host))
    assert later is not None
    assert (later.user_percent, later.kernel_percent, later.iowait_percent, later.idle_percent) == (25, 25, 0, 50)
