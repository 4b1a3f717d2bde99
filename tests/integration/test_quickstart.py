from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import stack_folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

QUICKSTART = Path(__file__).parents[2] / "deploy" / "quickstart"
UP = "Ctrl-C stops everything."
DEADLINE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Quickstart:
    """The script at work in a folder of its own."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def reaches(self, text: str) -> bool:
        """Wait until it has said something; false if it ended before."""
        eventually(lambda: text in self.said or self.process.poll() is not None)
        return text in self.said

    def end(self, how: signal.Signals) -> int:
        """Send a signal to the script alone, as `kill` does, and wait for its end."""
        self.process.send_signal(how)
        return self.process.wait(DEADLINE_SECONDS)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def quickstart(folder: Path) -> Iterator[Quickstart]:
    """Start it as a script's background job is: without a terminal, SIGINT ignored."""
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", QUICKSTART, "--dir", folder],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield Quickstart(process, folder)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    with stack_folder() as made:
        yield made


def processes_below(folder: Path) -> list[str]:
    """What runs with `folder` in its environment, its command line or as its place."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "environ").read_bytes() + b"\0" + (entry / "cmdline").read_bytes()
            place = (entry / "cwd").resolve()
        except OSError:
            continue
        if str(folder).encode() in text or folder in {place, *place.parents}:
            found.append((entry / "cmdline").read_text())
    return found


def check_story(said: str) -> None:
    """Every step is there, and what is claimed at the end is what it should be."""
    for promise in (
        "pinned to the host's CPUs 8, 9",
        "nothing was charged twice",
        "confirm: applied",
        "revert: applied",
        "rejected",
        "misrouted",
        "1 replayed, 0 left",
        "every total agrees",
    ):
        assert promise in said
    assert re.search(r"quick-2 at \S+: applied", said)
    assert len(re.findall(r"requested, \d+ of \d+ used, short by \d+", said)) == 3
    assert re.search(r"^vcpus +\d+ +\d+ +\d+ +9 +\d+$", said, re.MULTILINE)


def worker_of(running: Quickstart) -> int:
    (worker,) = (
        int(entry.parent.name)
        for entry in Path("/proc").glob("[0-9]*/stat")
        if entry.read_text().rpartition(")")[2].split()[1] == str(running.process.pid)
        and b"nodeledger\0worker" in (entry.parent / "cmdline").read_bytes()
    )
    return worker


def test_a_second_run_goes_on_where_ctrl_c_ended_the_first_and_nothing_is_left_running(folder: Path) -> None:
    with quickstart(folder) as first:
        assert first.reaches(UP), first.said
        assert first.end(signal.SIGINT) == 0, first.said
    check_story(first.said)
    assert processes_below(folder) == []
    with quickstart(folder) as second:
        assert second.reaches(UP), second.said
        os.kill(worker_of(second), signal.SIGKILL)
        assert second.process.wait(DEADLINE_SECONDS) == 1
    assert "Deleting what the last run left claimed" in second.said
    check_story(second.said)
    assert "The worker ended; its log is" in second.said
    assert processes_below(folder) == []


def test_two_at_once_in_one_folder_are_refused_and_sigterm_ends_the_first(folder: Path) -> None:
    with quickstart(folder) as running:
        assert running.reaches("Starting a private"), running.said
        second = subprocess.run([QUICKSTART, "--dir", folder], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "runs in" in second.stderr
        assert running.end(signal.SIGTERM) == 143
    assert processes_below(folder) == []


def test_a_step_that_fails_is_told_and_ends_everything(folder: Path) -> None:
    (folder / "postgres" / "data").mkdir(parents=True)
    (folder / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with quickstart(folder) as running:
        assert running.process.wait(DEADLINE_SECONDS) == 1
    assert "was made by Postgres 9" in running.said
    assert processes_below(folder) == []
