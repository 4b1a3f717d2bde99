from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.commands import KINDS
from schemas.outcomes import DeadReason, ReasonCode, Status
from worker.telemetry.histogram import BatchHistogram
from worker.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Answer:
    kind: str
    status: str
    codes: tuple[str, ...] = ()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"nodeledger_{name}", labels)


def test_a_batch_is_counted_by_kind_status_and_code() -> None:
    metrics = Metrics("1.2.3")
    metrics.committed(
        [
            Answer("claim", "applied"),
            Answer("claim", "rejected", ("insufficient", "insufficient", "missing_trait")),
            Answer("delete", "applied"),
        ],
        nodes=2,
        seconds=0.004,
        ages=[0.001, 0.2, 90.0],
    )
    metrics.answered([0.002, 0.3])
    assert value(metrics, "outcomes_total", kind="claim", status="applied") == 1
    assert value(metrics, "outcomes_total", kind="claim", status="rejected") == 1
    assert value(metrics, "rejections_total", code="insufficient") == 2
    assert value(metrics, "batch_commands_count") == 1
    assert value(metrics, "batch_nodes_bucket", le="2.0") == 1
    assert value(metrics, "receipt_to_commit_seconds_count") == 3
    assert value(metrics, "receipt_to_commit_seconds_bucket", le="60.0") == 2
    assert value(metrics, "outcomes_published_total") == 2
    assert value(metrics, "info", version="1.2.3") == 1


def test_what_only_waits_is_no_rejection() -> None:
    metrics = Metrics()
    metrics.committed([Answer("claim", "parked", ("hypervisor_unreachable",))], nodes=1, seconds=0.004, ages=[0.001])
    assert value(metrics, "rejections_total", code="hypervisor_unreachable") == 0
    assert value(metrics, "outcomes_total", kind="claim", status="parked") == 1


def test_what_has_never_happened_is_told_as_0() -> None:
    metrics = Metrics()
    assert {value(metrics, "rejections_total", code=code) for code in get_args(ReasonCode)} == {0}
    assert {value(metrics, "commands_dead_total", reason=reason) for reason in get_args(DeadReason)} == {0}
    outcomes = product(KINDS, get_args(Status))
    assert {value(metrics, "outcomes_total", kind=kind, status=status) for kind, status in outcomes} == {0}


def test_no_series_tells_when_another_was_made() -> None:
    assert "_created" not in generate_latest(Metrics().registry).decode()


def test_two_workers_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one.answered([0.1, 0.2])
    assert value(two, "outcomes_published_total") == 0


def test_a_count_kept_elsewhere_is_read_when_the_page_is() -> None:
    metrics, taken = Metrics(), [3]
    metrics.follow("commands_received", "Messages taken from command queues.", lambda: taken[0])
    taken[0] = 7
    assert value(metrics, "commands_received_total") == 7


def test_every_metric_says_what_it_is_and_names_its_unit() -> None:
    metrics = Metrics()
    metrics.asked_hypervisor("inventory", "deadline", 5.0)
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    own = [family for family in families if family.name.startswith("nodeledger_")]
    assert len(own) > 30
    for family in own:
        assert family.documentation.endswith("."), family.name
        assert family.type != "histogram" or family.name.endswith(("_seconds", "_commands", "_nodes")), family.name


@given(st.lists(st.floats(min_value=0, max_value=100)), st.lists(st.floats(min_value=0, max_value=100)))
def test_a_histogram_counts_every_value_once_and_below_its_bounds(first: list[float], second: list[float]) -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("sizes", "Sizes.", (1.0, 10.0), registry)
    histogram.observe_all(first)
    for size in second:
        histogram.observe(size)
    sizes = first + second
    assert registry.get_sample_value("sizes_bucket", {"le": "1.0"}) == sum(size <= 1 for size in sizes)
    assert registry.get_sample_value("sizes_bucket", {"le": "10.0"}) == sum(size <= 10 for size in sizes)
    assert registry.get_sample_value("sizes_bucket", {"le": "+Inf"}) == len(sizes) == histogram.count
    total = registry.get_sample_value("sizes_sum")
    assert total is not None
    assert abs(total - sum(sizes)) < 1e-6
