"""Medians, spreads, percentiles and the ratios of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was taken several times: its median, its extremes and every value."""

    median: float
    lowest: float
    highest: float
    values: tuple[float, ...]


def spread(values: Sequence[float]) -> Spread:
    """Sum up a figure that was taken at least once, to four significant digits."""
    rounded = tuple(significant(value) for value in values)
    return Spread(significant(median(values)), min(rounded), max(rounded), rounded)


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """The ratio of each pair: what was measured one after the other is compared with one another."""
    return spread([one / other for one, other in zip(over, under, strict=True)])


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values, in ascending order, do not exceed."""
    index = -(-share * len(ordered) // 1) - 1
    return ordered[max(0, min(len(ordered) - 1, int(index)))]


def significant(value: float) -> float:
    """The value with four significant digits."""
    return float(f"{value:.4g}")
