from __future__ import annotations

import pytest

from worker.bench.figures import percentile, ratios, spread


def test_a_spread_keeps_every_value_and_its_middle() -> None:
    figure = spread([3000.04, 2800.0, 3123.456])
    assert (figure.lowest, figure.median, figure.highest) == (2800.0, 3000.0, 3123.0)
    assert figure.values == (3000.0, 2800.0, 3123.0)


def test_ratios_compare_neighbours_and_not_medians() -> None:
    assert ratios([100.0, 50.0, 10.0], [50.0, 50.0, 20.0]).median == 1.0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0), (0.0, 1.0)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 101)], share) == expected
