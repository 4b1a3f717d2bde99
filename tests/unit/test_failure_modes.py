from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
MODES: list[dict[str, Any]] = tomllib.loads((TESTS / "failure_modes.toml").read_text())["mode"]


def test_each_of_the_eighty_failure_modes_is_tested_or_cannot_arise() -> None:
    assert [mode["number"] for mode in MODES] == list(range(1, 81))
    for mode in MODES:
        assert mode.keys() <= {"number", "how", "tests", "because"}
        assert mode["how"]
        assert mode.get("tests") or mode.get("because")


def test_every_test_that_the_table_names_is_there_and_runs() -> None:
    named = {f"tests/{test}" for mode in MODES for test in mode.get("tests", ())}
    files = sorted({name.partition("::")[0] for name in named})
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *files],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    collected = {line.partition("[")[0] for line in listing.stdout.splitlines() if "::" in line}
    assert named - collected == set()
