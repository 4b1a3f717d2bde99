"""The operators' page says what is so. Run as a program, it writes the table of settings anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worker.cli.app import tree
from worker.settings import describe_settings
from worker.telemetry.metrics import Metrics

PAGE = Path(__file__).parents[2] / "deploy" / "operations.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in describe_settings():
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.variable}` | {default} | {setting.description} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    before, rest = page.split(BEGIN)
    return before + BEGIN + settings_table() + END + rest.split(END, 1)[1]


def commands(command: Any, name: str = "") -> Iterator[str]:
    below = getattr(command, "commands", {})
    for word, inner in below.items():
        yield from commands(inner, f"{name} {word}".strip())
    yield name


def test_the_table_of_settings_is_that_of_the_program() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), f"run `python {Path(__file__).name}` in its folder"


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"NODELEDGER_[A-Z_]+[A-Z]", PAGE.read_text()))
    assert named <= {setting.variable for setting in describe_settings()}


def test_every_metric_that_is_named_exists() -> None:
    exported = {family.name for family in Metrics().registry.collect()}
    named = {name.removesuffix("_total") for name in re.findall(r"`(nodeledger_[a-z_]+)`", PAGE.read_text())}
    roles = {"nodeledger_worker", "nodeledger_reader", "nodeledger_owner"}
    assert named - roles <= exported


def test_every_command_that_is_named_exists() -> None:
    known = set(commands(tree()))
    for line in re.findall(r"`nodeledger ([^`]+)`", PAGE.read_text()):
        words = re.split(r" (?=-|[A-Z])", line)[0].split()
        assert " ".join(words[:2]) in known or words[0] in known, line


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
