"""The checklists for extensions name the files that an existing example touches, and miss none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
CHECKLISTS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", PAGE, re.DOTALL | re.MULTILINE))
SOURCES = [
    path
    for folder in ("schemas", "worker")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sql", ".js", ".html"} and "published" not in path.parts
]


def holds(path: Path, name: str) -> bool:
    (line,) = re.findall(r"^Example: (.+)$", CHECKLISTS[name], re.MULTILINE)
    examples = "|".join(re.escape(example) for example in re.findall(r"`([^`]+)`", line))
    return re.search(rf"(?<!\w)(?:{examples})(?!\w)", path.read_text(encoding="utf-8")) is not None


def listed(name: str) -> list[str]:
    return re.findall(r"^- `([^`]+)`: ", CHECKLISTS[name], re.MULTILINE)


def test_there_is_a_checklist_for_each_kind_of_extension() -> None:
    wanted = ("command kind", "resource kind", "column of the node", "setting", "metric", "page of the command line")
    assert sorted(CHECKLISTS) == sorted(f"A {what}" for what in wanted)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_each_file_that_is_listed_holds_the_example(name: str) -> None:
    assert listed(name)
    assert [path for path in listed(name) if not holds(ROOT / path, name)] == []


@pytest.mark.parametrize("name", CHECKLISTS)
def test_no_file_that_holds_the_example_is_missing(name: str) -> None:
    found = {str(path.relative_to(ROOT)) for path in SOURCES if holds(path, name)}
    assert sorted(found - set(listed(name))) == []
