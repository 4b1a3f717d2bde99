"""A picture of the results; needs the extra ``plot``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.bench.results import Comparison, Point, Results

_COLOURS = {"loop": "#9aa0a6", "worker": "#1a73e8", "plain worker": "#e8710a", "2 workers": "#12a4af"}


def check() -> None:
    """Make sure that plotting is possible, before hours are spent on measuring.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise UsageError("plotting needs matplotlib: install nodeledger[plot]") from None
    mpl.use("agg")


def draw(results: Results, file: Path) -> None:
    """Write the picture: rates side by side, and what grows along each axis.

    Raises:
        UsageError: as :func:`check`.
        OSError: the file cannot be written.
    """
    check()
    from matplotlib import pyplot as plt

    axes = list(dict.fromkeys(point.axis for point in results.growth))
    comparisons = [found for found in results.comparisons.values() if found.runs.keys() <= _COLOURS.keys()]
    panels = len(axes) + bool(comparisons)
    figure, places = plt.subplots(max(panels, 1), 1, figsize=(10, 4 * max(panels, 1)), squeeze=False)
    spots = [row[0] for row in places]
    if comparisons:
        _bars(spots.pop(0), comparisons)
    for axis, spot in zip(axes, spots, strict=False):
        _curve(spot, [point for point in results.growth if point.axis == axis])
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _bars(spot: Any, comparisons: list[Comparison]) -> None:
    """The rate of each side in each scenario, with its lowest and highest."""
    sides = list(dict.fromkeys(side for comparison in comparisons for side in comparison.runs))
    width = 0.8 / len(sides)
    for offset, side in enumerate(sides):
        for row, comparison in enumerate(comparisons):
            if side not in comparison.runs:
                continue
            rate = comparison.rate(side)
            reach = [[rate.median - rate.lowest], [rate.highest - rate.median]]
            label = side if comparison is next(one for one in comparisons if side in one.runs) else None
            spot.bar(row + offset * width, rate.median, width, yerr=reach, color=_COLOURS[side], label=label)
    places = [row + width * (len(sides) - 1) / 2 for row in range(len(comparisons))]
    spot.set_xticks(places, [comparison.name for comparison in comparisons])
    spot.set_ylabel("commands per second")
    spot.legend()


def _curve(spot: Any, points: list[Point]) -> None:
    """Rate and latency along one axis."""
    places = range(len(points))
    rates = [point.rate for point in points]
    reach = [
        [rate.median - rate.lowest for rate in rates],
        [rate.highest - rate.median for rate in rates],
    ]
    spot.errorbar(places, [rate.median for rate in rates], yerr=reach, marker="o", color=_COLOURS["worker"])
    spot.set_xticks(places, [f"{point.value:,}" for point in points])
    spot.set_xlabel(points[0].axis)
    spot.set_ylabel("commands per second")
    spot.set_ylim(bottom=0)
    beside = spot.twinx()
    for name, style in (("p50", ":"), ("p99", "--")):
        values = [getattr(point, f"{name}_milliseconds") for point in points]
        beside.plot(places, values, style, color=_COLOURS["plain worker"], label=f"{name} at half load")
    beside.set_ylabel("milliseconds")
    beside.set_ylim(bottom=0)
    beside.legend()
