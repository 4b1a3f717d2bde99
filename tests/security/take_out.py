"""Takes each protection of ``protections.toml`` out of a copy of the project, and sees that its tests miss it.

    .venv/bin/python tests/security/take_out.py [--servers] [WORD ...]

Without ``--servers`` only protections whose tests need no server are tried; words choose those with one of them in
their name. Every test has to pass on the whole copy first. Exit status 1 if a protection is missed by no test.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[2]
LIST: Final = Path(__file__).with_name("protections.toml")
_DEADLINE_SECONDS: Final = 600
_FAILED: Final = 1
"""pytest's status where tests ran and some failed; a copy in which nothing can be collected proves nothing."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What stands in the code, what would stand there without it, and the tests of which each must fail then."""

    name: str
    file: str
    take: str
    give: str
    tests: tuple[str, ...]
    servers: bool = False

    def taken_out(self, text: str) -> str:
        """The file without the protection.

        Raises:
            ValueError: it does not stand there exactly once.
        """
        if text.count(self.take) != 1:
            raise ValueError(f"{self.name}: stands {text.count(self.take)} times in {self.file}")
        return text.replace(self.take, self.give)


def protections() -> list[Protection]:
    """All of them, as listed."""
    listed = tomllib.loads(LIST.read_text("utf-8"))["protection"]
    return [Protection(**{**one, "tests": tuple(one["tests"])}) for one in listed]


def places() -> dict[str, str]:
    """The file of every test, by its name."""
    return {
        name: str(file.relative_to(PROJECT))
        for file in sorted((PROJECT / "tests").rglob("test_*.py"))
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text("utf-8"), re.MULTILINE)
    }


def unmissed(protection: Protection, copy: Path, python: str, where: dict[str, str]) -> list[str]:
    """Those of its tests that do not fail without the protection, each with pytest's last line."""
    path = copy / protection.file
    whole = path.read_text("utf-8")
    path.write_text(protection.taken_out(whole), "utf-8")
    try:
        ended = {test: _run(copy, python, f"{where[test]}::{test}") for test in protection.tests}
    finally:
        path.write_text(whole, "utf-8")
    return [f"{test}: {said}" for test, (status, said) in ended.items() if status != _FAILED]


def _run(copy: Path, python: str, *tests: str) -> tuple[int, str]:
    command = [python, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=copy, env=environment, text=True, capture_output=True, check=False, timeout=_DEADLINE_SECONDS
    )
    return done.returncode, (done.stdout.strip().splitlines() or ["nothing"])[-1]


def _copy(folder: Path) -> Path:
    """What is under version control, or is about to be, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, capture_output=True,
        check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    return folder


def _python(copy: Path, *, servers: bool) -> str:
    """What runs the tests; with servers an environment of the copy's own, as its scripts would bring this one to it."""
    if not servers:
        return sys.executable
    subprocess.run([copy / "deploy" / "test", "tests/unit/test_settings.py"], cwd=copy, check=True, capture_output=True)
    return str(copy / ".venv" / "bin" / "python")


def main() -> int:
    """Take out those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", action="store_true", help="those whose tests need servers too")
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    chosen = [
        one
        for one in protections()
        if (asked.servers or not one.servers) and (not asked.words or any(word in one.name for word in asked.words))
    ]
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy(Path(folder))
        return _work_through(chosen, copy, _python(copy, servers=asked.servers))


def _work_through(chosen: list[Protection], copy: Path, python: str) -> int:
    where = places()
    status, said = _run(copy, python, *sorted({f"{where[test]}::{test}" for one in chosen for test in one.tests}))
    if status != 0:
        sys.stdout.write(f"not all tests pass with every protection there: {said}\n")
        return 1
    missed_by_none = 0
    for protection in chosen:
        left = unmissed(protection, copy, python, where)
        missed_by_none += bool(left)
        sys.stdout.write(f"{'NOT MISSED' if left else 'missed':>10}  {protection.name}\n")
        sys.stdout.writelines(f"            {line}\n" for line in left)
        sys.stdout.flush()
    return bool(missed_by_none)


if __name__ == "__main__":
    sys.exit(main())
