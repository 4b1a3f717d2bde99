"""A histogram that takes a whole batch of values at once."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry


class BatchHistogram(Collector):
    """Counts values by size.

    Prometheus' own histogram takes a lock for every value. This one belongs to
    the thread of the event loop, which both fills and shows it.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = sorted(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    @property
    def count(self) -> int:
        """How many values were taken."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Take one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Take many values."""
        bounds, counts, total = self._bounds, self._counts, 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self._sum += total

    def describe(self) -> list[HistogramMetricFamily]:
        """What the registry needs to know its name."""
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> list[HistogramMetricFamily]:
        """The buckets, each counting all values up to its bound."""
        family = HistogramMetricFamily(self._name, self._documentation)
        buckets: list[tuple[str, float]] = []
        reached = 0
        for bound, count in zip([*map(repr, self._bounds), "+Inf"], self._counts, strict=True):
            reached += count
            buckets.append((bound, reached))
        family.add_metric([], buckets, self._sum)
        return [family]
