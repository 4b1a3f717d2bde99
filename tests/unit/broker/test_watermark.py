from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.broker.watermark import Watermark


@st.composite
def finishing_orders(draw: st.DrawFn) -> tuple[int, list[int]]:
    """How many were delivered, and in which order some of them were finished, some twice."""
    delivered = draw(st.integers(0, 40))
    tags = draw(st.permutations(range(1, delivered + 1)))
    finished = tags[: draw(st.integers(0, delivered))]
    return delivered, finished + draw(st.lists(st.sampled_from(finished), max_size=5) if finished else st.just([]))


@given(finishing_orders())
def test_nothing_unfinished_is_ever_acknowledged_and_everything_below_the_first_gap_is(
    case: tuple[int, list[int]],
) -> None:
    delivered, order = case
    watermark = Watermark()
    for tag in range(1, delivered + 1):
        watermark.deliver(tag)
    finished: set[int] = set()
    for tag in order:
        watermark.finish(tag)
        finished.add(tag)
        gap = min(set(range(1, delivered + 2)) - finished)
        assert watermark.level == gap - 1
        assert watermark.unfinished == delivered - len(finished)


@given(finishing_orders())
def test_each_level_is_acknowledged_once(case: tuple[int, list[int]]) -> None:
    delivered, order = case
    watermark = Watermark()
    watermark.deliver(delivered)
    taken = []
    for tag in order:
        watermark.finish(tag)
        taken.append(watermark.take())
    sent = [tag for tag in taken if tag is not None]
    assert sent == sorted(set(sent))
    assert watermark.take() is None
    assert (sent[-1] if sent else 0) == watermark.level


def test_a_tag_that_was_never_delivered_is_ignored() -> None:
    watermark = Watermark()
    watermark.deliver(2)
    watermark.finish(7)
    watermark.finish(2)
    assert (watermark.level, watermark.unfinished) == (0, 1)
    watermark.finish(1)
    assert (watermark.level, watermark.unfinished) == (2, 0)
