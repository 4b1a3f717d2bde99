from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.broker.backlog import Backlog
from worker.broker.wire import Message, Properties


def message(tag: int, size: int = 10) -> Message:
    return Message(tag, False, b"\0\0", Properties(), b"x" * size)


def filled(count: int, size: int = 10, letters: int = 50) -> Backlog:
    backlog = Backlog(letters, 10_000)
    for tag in range(1, count + 1):
        backlog.add(message(tag, size))
    return backlog


def tags(batch: list[Message]) -> list[int]:
    return [one.tag for one in batch]


def test_a_batch_is_bounded_in_letters_and_in_bytes_and_is_never_empty() -> None:
    assert len(filled(70).take(0.0)) == 50
    assert len(filled(70, 3000).take(0.0)) == 3
    assert len(filled(70, 50_000).take(0.0)) == 1


@given(
    count=st.integers(1, 120),
    bad=st.sets(st.integers(1, 120), max_size=20),
    letters=st.integers(1, 50),
    away=st.booleans(),
)
def test_every_other_letter_is_stored_in_order_while_those_that_fail_are_tried_again(
    count: int,
    bad: set[int],
    letters: int,
    away: bool,  # noqa: FBT001 - drawn
) -> None:
    bad = {tag for tag in bad if tag <= count}
    backlog = filled(count, letters=letters)
    stored: list[int] = []
    attempts = 0
    while len(stored) < count - len(bad):
        batch = backlog.take(0.0)
        attempts += 1
        assert attempts <= count + 12 * len(bad)
        if bad.isdisjoint(tags(batch)):
            backlog.stored(batch)
            stored += tags(batch)
        else:
            backlog.failed(batch, 0.0, away=away)
    assert stored == [tag for tag in range(1, count + 1) if tag not in bad]
    while rest := backlog.take(1e9):
        backlog.stored(rest)
        stored += tags(rest)
    assert sorted(stored) == list(range(1, count + 1))


def test_while_the_archive_is_away_letters_keep_their_order() -> None:
    backlog = filled(8)
    for _ in range(30):
        backlog.failed(backlog.take(0.0), 0.0, away=True)
    stored: list[int] = []
    while batch := backlog.take(60.0):
        stored += tags(batch)
        backlog.stored(batch)
    assert stored == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_letter_set_aside_holds_back_none_and_is_tried_alone_and_later_each_time() -> None:
    backlog = filled(1)
    now = 0.0
    for _ in range(20):
        backlog.failed(backlog.take(now), now, away=False)
        backlog.add(message(2))
        assert tags(backlog.take(now)) == [2]
        backlog.stored([message(2)])
        assert backlog.due is not None
        assert now < backlog.due <= now + 10.0
        assert backlog.take(now) == []
        now = backlog.due
        assert tags(backlog.take(now)) == [1]
    backlog.stored([message(1)])
    assert (backlog.aside, backlog.due) == (0, None)
