"""What a run of the bench found, and how that is turned into JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from worker.bench.backlog import Run
from worker.bench.figures import Spread, ratios, spread


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a scenario: the runs of each side, the first of one beside the first of the others."""

    name: str
    title: str
    runs: dict[str, list[Run]]

    def rate(self, side: str) -> Spread:
        """Commands per second of a side."""
        return spread([run.rate for run in self.runs[side]])

    def cpu_microseconds(self, side: str) -> Spread:
        """Processor time per command of a side."""
        return spread([run.cpu_microseconds for run in self.runs[side]])

    def rate_ratio(self, side: str = "worker", to: str = "loop") -> Spread:
        """How many times as fast one side is as another."""
        return ratios([run.rate for run in self.runs[side]], [run.rate for run in self.runs[to]])

    def cpu_ratio(self, side: str = "worker", to: str = "loop") -> Spread:
        """How many times the processor time of another side one side takes."""
        over, under = self.runs[side], self.runs[to]
        return ratios([run.cpu_microseconds for run in over], [run.cpu_microseconds for run in under])

    def document(self) -> dict[str, Any]:
        """As JSON."""
        sides = {
            side: {
                "rate": asdict(self.rate(side)),
                "cpu_microseconds": asdict(self.cpu_microseconds(side)),
                "commits_per_command": asdict(spread([run.commits for run in runs])),
                "wal_bytes_per_command": asdict(spread([run.wal_bytes for run in runs])),
                "machine_cpus_busy": asdict(spread([run.machine_cpu for run in runs])),
                "commands": runs[0].commands,
                "answer_bytes": runs[0].answer_bytes,
                "repeated_answers": sum(run.repeated for run in runs),
                "rate_to_loop": asdict(self.rate_ratio(side)) if "loop" in self.runs else None,
                "cpu_to_loop": asdict(self.cpu_ratio(side)) if "loop" in self.runs else None,
            }
            for side, runs in self.runs.items()
        }
        return {"name": self.name, "title": self.title, "sides": sides}


@dataclass(frozen=True, slots=True)
class Latency:
    """Time from publishing a command to its outcome at a fixed rate, in milliseconds."""

    scenario: str
    side: str
    rate: float
    commands: int
    p50: float
    p90: float
    p99: float
    highest: float
    late_p99: float
    """How late the bench itself sent: above a millisecond or two, the machine is short of processors."""


@dataclass(frozen=True, slots=True)
class Statements:
    """What a batch asks of the database."""

    batch: float
    """Commands in a transaction on average."""
    transactions: int
    per_transaction: float
    per_command: float


@dataclass(frozen=True, slots=True)
class Start:
    """A worker's start beside a full database."""

    allocations: int
    seconds: float
    """From starting the process to its first outcome."""
    cpu_seconds: float
    """Processor time of the process until then."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a worker that has worked for so many nodes."""

    nodes: int
    resident_mib: float


@dataclass(frozen=True, slots=True)
class Point:
    """The worker at one place on an axis of growth; latencies at half its rate there."""

    axis: str
    value: int
    rate: Spread
    cpu_microseconds: Spread
    machine_cpus_busy: Spread
    p50_milliseconds: float
    p99_milliseconds: float
    limit: str


@dataclass(slots=True)
class Results:
    """Everything that was measured in one run."""

    environment: dict[str, Any]
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    latencies: list[Latency] = field(default_factory=list)
    statements: list[Statements] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    growth: list[Point] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Parts that could not be measured, and why."""
    differences: int | None = None
    """Contradictions that the ledger held afterwards."""
