"""What the worker is held to: each bound beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import ge, le, lt
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from worker.bench.results import Results

_SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {"≥": ge, "≤": le, "<": lt}
_FULL_LOAD: Final = 3000.0
HALF_LOAD: Final = _FULL_LOAD / 2
"""Commands per second at which latency is held against its bounds: half of what a worker has to carry."""
_FAST_START_ALLOCATIONS: Final = 100_000
_HOT_NODES: Final = 1000
_SAME: Final = 0.5


@dataclass(frozen=True, slots=True)
class Criterion:
    """A bound and the figure held against it; ``measured`` is ``None`` where nothing was measured."""

    about: str
    sign: str
    bound: float
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; ``None``: not known."""
        return None if self.measured is None else _SIGNS[self.sign](self.measured, self.bound)


def judge(results: Results) -> list[Criterion]:
    """Hold the results against every bound."""
    return [Criterion(*row) for part in (_rates, _growth, _times, _database) for row in part(results)]


Row = tuple[str, str, float, float | None]


def _rates(results: Results) -> Iterator[Row]:
    for name in ("claims-100", "claims-10000"):
        yield f"{name}: rate beside the bare loop's", "≥", 1.0, _ratio(results, name)
        yield f"{name}: claims per second", "≥", _FULL_LOAD, _rate(results, name)
        yield f"{name}: processor time beside the bare loop's", "≤", 1.2, _cpu(results, name)
    for name, bound in (("claims-1", 0.9), ("mix", 0.8), ("pinned", 0.6)):
        yield f"{name}: rate beside the bare loop's", "≥", bound, _ratio(results, name)


def _growth(results: Results) -> Iterator[Row]:
    for large, small, bound in (("claims-10000", "claims-100", 0.8), ("full-node", "empty-node", 0.9)):
        found = results.comparisons.get(f"{large} beside {small}")
        ratio = found.rate_ratio(large, small).median if found else None
        yield f"{large}: rate beside {small} by turns", "≥", bound, ratio
    pair = results.comparisons.get("two-workers")
    both = pair.rate_ratio("2 workers", "worker").median if pair else None
    yield "two workers: rate beside one", "≥", 1.0, both


def _times(results: Results) -> Iterator[Row]:
    latencies = [found for found in results.latencies if found.side == "worker" and found.rate == HALF_LOAD]
    yield "half load: median latency in ms", "<", 6.0, max((found.p50 for found in latencies), default=None)
    yield "half load: 99th percentile in ms", "<", 25.0, max((found.p99 for found in latencies), default=None)
    starts = [start.seconds for start in results.starts if start.allocations >= _FAST_START_ALLOCATIONS]
    yield "start beside 100,000 allocations in s", "<", 2.0, median(starts) if starts else None
    memory = [memory.resident_mib for memory in results.memory if memory.nodes >= _HOT_NODES]
    yield "memory with 1,000 hot nodes in MiB", "<", 150.0, max(memory, default=None)


def _database(results: Results) -> Iterator[Row]:
    full = results.comparisons.get("claims-100")
    commits = max(run.commits for run in full.runs["worker"]) if full else None
    yield "claims-100: commits per claim", "<", 0.05, commits
    counts = [found.per_transaction for found in results.statements]
    yield (
        "statements of the largest batch less the smallest's",
        "<",
        _SAME,
        max(counts) - min(counts) if counts else None,
    )
    differences = results.differences
    yield "contradictions in the ledger afterwards", "≤", 0.0, None if differences is None else float(differences)


def _rate(results: Results, name: str) -> float | None:
    found = results.comparisons.get(name)
    return found.rate("worker").median if found else None


def _ratio(results: Results, name: str) -> float | None:
    found = results.comparisons.get(name)
    return found.rate_ratio().median if found else None


def _cpu(results: Results, name: str) -> float | None:
    found = results.comparisons.get(name)
    return found.cpu_ratio().median if found else None
