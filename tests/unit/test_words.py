"""One word, one meaning: words that were given up for the field's stay away, and the glossary is in order."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]
RETIRED = re.compile(
    r"(?i)\bbur(?:y|ie[ds]|ials?|ying)\b|undertaker|mortuar|foret(?:ell|old)|foresight|\bwhat-?if\b"
    r"|\boutr[au]n|\bfor ever\b|\bat the most\b|\bapart by\b|\bmend(?:s|ed|ing)?\b|\broads?\b|_road\b|\btries\b"
    r"|\bLedgerRace|\bis_race\b|\bhot road\b"
)
FROZEN = re.compile(
    r"worker/ledger/migrations/000[1-5]_|0009_words|uv\.lock|LICENSE|tests/bench/figures/|test_words\.py"
)
"""Migrations that were applied somewhere stay as they are; the one that renames names both sides."""


def files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:  # unpacked from an archive
        names = [
            str(path.relative_to(PROJECT))
            for folder in ("worker", "schemas", "deploy", "tests")
            for path in (PROJECT / folder).rglob("*")
            if path.suffix in {".py", ".sql", ".md", ".toml"}
        ]
    return [PROJECT / name for name in names if not FROZEN.search(name) and (PROJECT / name).is_file()]


def test_words_that_were_given_up_are_used_nowhere() -> None:
    found = []
    for file in files():
        text = file.read_bytes().decode(errors="replace")
        found += [f"{file.relative_to(PROJECT)}: {match[0]}" for match in RETIRED.finditer(text)]
    assert found == []


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    words = re.findall(r"^\| ([^|]+?) \|", (PROJECT / "deploy" / "glossary.md").read_text(), re.MULTILINE)[1:]
    assert words == sorted(set(words), key=str.lower)
    assert len(words) > 20
