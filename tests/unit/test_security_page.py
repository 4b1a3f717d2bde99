from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "deploy" / "security.md").read_text()
WEAKNESSES = (284, 435, 664, 682, 691, 693, 697, 703, 707, 710)


def test_every_test_that_is_named_exists() -> None:
    there = {
        name
        for file in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert named - there == set()


def test_every_pillar_of_weaknesses_is_gone_through() -> None:
    for number in WEAKNESSES:
        section = re.search(rf"^### .*\(CWE-{number}\)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
        assert section is not None, number
        assert "`test_" in section[1], number


def test_every_program_and_setting_that_is_named_exists() -> None:
    from worker.settings import Settings, variable

    for name in re.findall(r"`deploy/([\w-]+)", PAGE):
        assert (PROJECT / "deploy" / name).exists(), name
    known = {variable(field) for field in Settings.model_fields}
    for name in re.findall(r"NODELEDGER_[A-Z_]+[A-Z]", PAGE):
        assert name in known or name.removesuffix("_FILE") in known, name
