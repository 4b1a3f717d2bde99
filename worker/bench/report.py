"""What was found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table

from worker.bench.criteria import Criterion, judge
from worker.bench.figures import significant, spread

if TYPE_CHECKING:
    from worker.bench.figures import Spread
    from worker.bench.results import Comparison, Results


def document(results: Results) -> dict[str, Any]:
    """The results as JSON: figures with their spread, and the criteria with what was measured."""
    return {
        "environment": results.environment,
        "scenarios": [comparison.document() for comparison in results.comparisons.values()],
        "latency_milliseconds": [asdict(latency) for latency in results.latencies],
        "statements": [asdict(statements) for statements in results.statements],
        "starts": [asdict(start) for start in results.starts],
        "memory": [asdict(memory) for memory in results.memory],
        "growth": [asdict(point) for point in results.growth],
        "failures": results.failures,
        "differences": results.differences,
        "criteria": [{**asdict(criterion), "met": criterion.met} for criterion in judge(results)],
    }


def show(results: Results, console: Console) -> None:
    """Print tables."""
    console.print(Group(*_tables(results)))


def _tables(results: Results) -> Iterator[RenderableType]:
    environment = results.environment
    yield (
        f"RabbitMQ {environment['rabbitmq']}, PostgreSQL {environment['database']['version']}, "
        f"{environment['processors']} processors, {environment['commands']} commands a run, "
        f"median of {environment['repeats']} (lowest to highest)"
    )
    if results.comparisons:
        yield _rates(list(results.comparisons.values()))
    if results.latencies:
        yield _latencies(results)
    if results.statements:
        yield _statements(results)
    if results.starts:
        seconds = _spread(spread([start.seconds for start in results.starts]), 2)
        cpu = _spread(spread([start.cpu_seconds for start in results.starts]), 2)
        beside = f"beside {results.starts[0].allocations:,} allocations"
        yield f"first outcome {seconds} s after the start, {beside}, with {cpu} s of processor time"
    for memory in results.memory:
        yield f"{memory.resident_mib:.0f} MiB resident after work for {memory.nodes:,} nodes"
    if results.growth:
        yield _growth(results)
    for name, why in results.failures.items():
        yield f"{name} could not be measured: {why}"
    yield _criteria(judge(results))


def _rates(comparisons: list[Comparison]) -> Table:
    table = _table(
        "load", "side", "per second", "to the loop", "CPU µs each", "to the loop", "commits each", "WAL bytes each"
    )
    for comparison in comparisons:
        for row, (side, runs) in enumerate(comparison.runs.items()):
            beside = side != "loop" and "loop" in comparison.runs
            table.add_row(
                "" if row else comparison.title,
                side,
                _spread(comparison.rate(side), 0),
                _spread(comparison.rate_ratio(side), 2) if beside else "",
                _spread(comparison.cpu_microseconds(side), 0),
                _spread(comparison.cpu_ratio(side), 2) if beside else "",
                f"{max(run.commits for run in runs):.3f}" if side != "loop" else "",
                f"{median(run.wal_bytes for run in runs):,.0f}" if side != "loop" else "",
            )
        table.add_section()
    return table


def _latencies(results: Results) -> Table:
    table = _table(
        "latency under", "side", "per second", "p50 ms", "p90 ms", "p99 ms", "highest ms", "sent late p99 ms"
    )
    for found in results.latencies:
        times = (found.p50, found.p90, found.p99, found.highest, found.late_p99)
        table.add_row(found.scenario, found.side, f"{found.rate:,.0f}", *(f"{time:.1f}" for time in times))
    return table


def _statements(results: Results) -> Table:
    table = _table("commands in a batch", "batches", "statements each", "statements per command")
    for found in results.statements:
        row = (f"{found.transactions:,}", f"{found.per_transaction:.1f}", f"{found.per_command:.2f}")
        table.add_row(f"{found.batch:.1f}", *row)
    return table


def _growth(results: Results) -> Table:
    table = _table("growth", "per second", "CPU µs each", "p50 ms", "p99 ms", "limit")
    for point in results.growth:
        times = (f"{point.p50_milliseconds:.1f}", f"{point.p99_milliseconds:.1f}")
        figures = (_spread(point.rate, 0), _spread(point.cpu_microseconds, 0))
        table.add_row(f"{point.axis}: {point.value:,}", *figures, *times, point.limit)
    return table


def _criteria(criteria: list[Criterion]) -> Table:
    table = _table("criterion", "bound", "measured", "met")
    words = {True: "yes", False: "NO", None: "not measured"}
    for one in criteria:
        measured = "" if one.measured is None else f"{significant(one.measured):g}"
        table.add_row(one.about, f"{one.sign} {one.bound:g}", measured, words[one.met])
    return table


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left", overflow="fold")
    return table


def _spread(figure: Spread, digits: int) -> str:
    return f"{figure.median:,.{digits}f} ({figure.lowest:,.{digits}f}-{figure.highest:,.{digits}f})"
