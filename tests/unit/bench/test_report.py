from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from worker.bench.backlog import Run
from worker.bench.criteria import judge
from worker.bench.figures import spread
from worker.bench.plot import draw
from worker.bench.report import document, show
from worker.bench.results import Comparison, Latency, Point, Results, Start

ENVIRONMENT = {"rabbitmq": "3.10.8", "database": {"version": "15"}, "processors": 2, "commands": 100, "repeats": 3}


def run(side: str, rate: float, cpu: float = 200.0) -> Run:
    return Run(side, 100, rate, cpu, 1.9, 0.01, 3000.0, 480, 0)


def results() -> Results:
    runs = {
        "loop": [run("loop", 3000.0), run("loop", 1500.0), run("loop", 3100.0)],
        "worker": [run("worker", 3300.0), run("worker", 1800.0), run("worker", 3050.0)],
    }
    found = Results(ENVIRONMENT, {"claims-100": Comparison("claims-100", "claims over 100 nodes", runs)})
    found.latencies.append(Latency("claims over 100 nodes", "worker", 1500.0, 100, 3.0, 6.0, 30.0, 40.0, 0.5))
    found.starts.append(Start(2000, 1.0, 0.7))
    found.growth.append(Point("nodes", 10, spread([1.0]), spread([1.0]), spread([1.0]), 1.0, 2.0, "why"))
    found.differences = 0
    return found


def verdicts() -> dict[str, bool | None]:
    return {one.about: one.met for one in judge(results())}


def test_a_bound_is_met_or_missed_by_what_was_measured() -> None:
    found = verdicts()
    assert found["claims-100: rate beside the bare loop's"] is True
    assert found["half load: median latency in ms"] is True
    assert found["half load: 99th percentile in ms"] is False
    assert found["contradictions in the ledger afterwards"] is True


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    found = verdicts()
    assert found["claims-10000: claims per second"] is None
    assert found["start beside 100,000 allocations in s"] is None, "2,000 allocations prove nothing"


def test_the_document_is_json_with_the_values_of_every_run() -> None:
    written = json.loads(json.dumps(document(results())))
    side = written["scenarios"][0]["sides"]["worker"]
    assert side["rate"]["values"] == [3300.0, 1800.0, 3050.0]
    assert side["rate_to_loop"]["median"] == 1.1
    assert {"about", "sign", "bound", "measured", "met"} == set(written["criteria"][0])


def test_the_tables_name_what_was_missed() -> None:
    out = io.StringIO()
    show(results(), Console(file=out, width=140))
    line = next(line for line in out.getvalue().splitlines() if "99th percentile" in line)
    assert "NO" in line


def test_a_part_that_failed_is_told_beside_the_others() -> None:
    found = results()
    found.failures["mix"] = "3 of 100 commands were not applied"
    out = io.StringIO()
    show(found, Console(file=out, width=140))
    assert "mix could not be measured: 3 of 100 commands were not applied" in out.getvalue()
    assert document(found)["failures"] == found.failures


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    draw(results(), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
