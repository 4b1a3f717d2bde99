"""What a worker counts and measures, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from itertools import product
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from schemas.commands import KINDS
from schemas.outcomes import DeadReason, ReasonCode, Status
from worker.telemetry.histogram import BatchHistogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RetryCause = Literal["conflict", "failure"]
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_QUANTILES: Final = ("0.1", "0.5", "0.9", "0.99")


class Answered(Protocol):
    """An answer, as far as it is counted."""

    @property
    def kind(self) -> str:
        """The command's kind."""

    @property
    def status(self) -> str:
        """The outcome's status."""

    @property
    def codes(self) -> Sequence[str]:
        """The codes of the outcome's reasons."""


class _Followed(Collector):
    """A counter whose value is somebody else's."""

    def __init__(self, name: str, documentation: str, count: Callable[[], float]) -> None:
        self._name = name
        self._documentation = documentation
        self._count = count

    def describe(self) -> list[CounterMetricFamily]:
        """The name, so that the registry sees a second one of it."""
        return [CounterMetricFamily(self._name, self._documentation)]

    def collect(self) -> list[CounterMetricFamily]:
        """The count as it is now."""
        return [CounterMetricFamily(self._name, self._documentation, value=self._count())]


class Metrics:
    """The metrics of one worker, in a registry of their own.

    Methods are for the hot path and take a whole batch. Everything else is
    counted on the public metric itself. A gauge that costs something to know is
    given a function (``set_function``), which is called when the page is read.
    Counters with labels are there with 0 from the start, since a rate sees no first time.
    """

    def __init__(self, version: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types most of itself
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._gauge("info", "The running version.", "version").labels(version).set(1)
        self._command_path()
        self._waiting()
        self._servers()

    def _command_path(self) -> None:
        self.duplicates = self._counter("commands_duplicate", "Commands whose id had been answered before.")
        self.outcomes = self._counter("outcomes", "Outcomes committed.", kind=sorted(KINDS), status=get_args(Status))
        self.rejections = self._counter("rejections", "Reasons of rejected commands.", code=get_args(ReasonCode))
        self.dead = self._counter("commands_dead", "Messages put into the dead letters.", reason=get_args(DeadReason))
        self.batch_commands = self._batches("batch_commands", "Commands in one transaction.", _SIZES)
        self.batch_nodes = self._batches("batch_nodes", "Nodes in one transaction.", _SIZES)
        self.commit_seconds = self._batches("commit_seconds", "Duration of one transaction.", _SECONDS)
        self.batch_retries = self._counter("batch_retries", "Batches run again.", cause=get_args(RetryCause))
        self.to_commit_seconds = self._batches("receipt_to_commit_seconds", "From receipt to commit.", _SECONDS)
        self.to_outcome_seconds = self._batches(
            "receipt_to_outcome_seconds", "From receipt to the broker's confirm of the outcome.", _SECONDS
        )
        self.published = self._counter("outcomes_published", "Outcomes the broker confirmed.")

    def _waiting(self) -> None:
        self.lanes = self._gauge("lanes", "Nodes with commands waiting in this worker.")
        self.waiting = self._gauge("waiting_commands", "Commands received and not yet committed.")
        self.deepest_lane = self._gauge("deepest_lane_commands", "Commands waiting for the busiest node.")
        self.oldest_waiting_seconds = self._gauge("oldest_waiting_seconds", "Age of the oldest waiting command.")
        self.outbox = self._gauge("outbox_messages", "Messages of committed outcomes that are not yet confirmed.")
        self.outbox_refused = self._gauge("outbox_refused_messages", "Refused messages that are to be tried again.")
        self.outcomes_refused = self._counter("outcomes_refused", "Times the broker refused a message with an outcome.")
        self.outcomes_given_up = self._counter(
            "outcomes_given_up", "Messages with an outcome that are published no more; it stays in the database."
        )
        self.outbox_swept = self._counter("outbox_swept", "Outcomes published by the sweeper.")
        self.parked = self._gauge("parked_commands", "Commands waiting for their hypervisor, of all workers.")
        self.parked_nodes = self._gauge("parked_nodes", "Nodes with such commands, of all workers.")
        self.drift = self._gauge("drift", "Differences between ledger and hypervisors now, of all nodes.", "kind")
        self._drifting: set[str] = set()
        self.host_cpu = self._gauge(
            "host_cpu_percent", "CPU time of all hosts by mode, at quantiles of the hosts.", "mode", "quantile"
        )
        self.host_memory = self._gauge(
            "host_memory_percent", "Memory in use of all hosts, at quantiles of the hosts.", "quantile"
        )
        self.looks = self._counter(
            "looks", "Looks at hypervisors that nobody asked for.", result=("answered", "unanswered")
        )
        self.looks_skipped = self._counter("looks_skipped", "Looks left out because they came too late.")
        self.archived = self._counter("dead_letters_archived", "Dead letters moved from the queue to the database.")

    def _servers(self) -> None:
        self.hypervisor_seconds = Histogram(
            "nodeledger_hypervisor_call_seconds",
            "Duration of a call to a hypervisor.",
            ("call", "result"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.hypervisors_unreachable = self._gauge("hypervisors_unreachable", "Nodes whose hypervisor does not answer.")
        self.hypervisor_calls_stuck = self._gauge("hypervisor_calls_stuck", "Calls past their deadline still running.")
        self.shards_held = self._gauge(
            "shards_held", "Shards this worker serves, busy or idle; the sum over workers is all of them."
        )
        self.broker_blocked = self._gauge("broker_blocked", "1 while the broker takes no messages from us.")
        self.database_losses = self._counter("database_losses", "Times the database did not answer.")
        self.database_up = self._gauge("database_up", "1 while the database answers.")

    def follow(self, name: str, documentation: str, count: Callable[[], float]) -> None:
        """Show a count that is kept elsewhere, as a counter that is read with the page."""
        self.registry.register(_Followed(f"nodeledger_{name}", documentation, count))

    def committed(self, answers: Iterable[Answered], *, nodes: int, seconds: float, ages: Sequence[float]) -> None:
        """Count one transaction.

        ``seconds`` is how long it took. ``ages`` gives, for each command in it,
        the seconds from receipt to commit.
        """
        outcomes: Tally[tuple[str, str]] = Tally()
        codes: Tally[str] = Tally()
        for answer in answers:
            outcomes[answer.kind, answer.status] += 1
            if answer.codes and answer.status == "rejected":
                codes.update(answer.codes)
        for (kind, status), count in outcomes.items():
            self.outcomes.labels(kind, status).inc(count)
        for code, count in codes.items():
            self.rejections.labels(code).inc(count)
        self.batch_commands.observe(len(ages))
        self.batch_nodes.observe(nodes)
        self.commit_seconds.observe(seconds)
        self.to_commit_seconds.observe_all(ages)

    def differing(self, amounts: Mapping[str, int]) -> None:
        """Show how much differs now between ledger and hypervisors, by kind; a kind that is gone shows 0."""
        self._drifting |= amounts.keys()
        for kind in self._drifting:
            self.drift.labels(kind).set(amounts.get(kind, 0))

    def busy(self, percentages: Mapping[str, Sequence[int]]) -> None:
        """Show how busy the hosts are, by what, at each of the quantiles."""
        for what, amounts in percentages.items():
            for quantile, amount in zip(_QUANTILES, amounts, strict=True):
                if what == "memory":
                    self.host_memory.labels(quantile).set(amount)
                else:
                    self.host_cpu.labels(what, quantile).set(amount)

    def denied(self, kind: str) -> None:
        """Count a command that the rules refused, as the rejected one that it is."""
        self.outcomes.labels(kind, "rejected").inc()
        self.rejections.labels("not_permitted").inc()

    def answered(self, ages: Sequence[float]) -> None:
        """Count outcomes the broker confirmed; ``ages`` are the seconds from receipt until then."""
        self.published.inc(len(ages))
        self.to_outcome_seconds.observe_all(ages)

    def asked_hypervisor(self, call: str, result: str, seconds: float) -> None:
        """Count one call to a hypervisor; ``result`` is ``ok``, ``failed``, ``deadline`` or ``refused``."""
        self.hypervisor_seconds.labels(call, result).observe(seconds)

    def _counter(self, name: str, documentation: str, **labels: Sequence[str]) -> Counter:
        counter = Counter(f"nodeledger_{name}", documentation, tuple(labels), registry=self.registry)
        for values in product(*labels.values()) if labels else ():
            counter.labels(*values)
        return counter

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"nodeledger_{name}", documentation, labels, registry=self.registry)

    def _batches(self, name: str, documentation: str, bounds: Sequence[float]) -> BatchHistogram:
        return BatchHistogram(f"nodeledger_{name}", documentation, bounds, self.registry)
