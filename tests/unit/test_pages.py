"""What the pages and the program's own texts name is there: commands, with their subcommands and flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worker.cli.app import tree
from worker.settings import Settings, variable

PROJECT = Path(__file__).parents[2]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "deploy").rglob("*.md"), *(PROJECT / "schemas").rglob("*.md")])
SOURCES = [path for package in ("worker", "schemas") for path in sorted((PROJECT / package).rglob("*.py"))]
DOCUMENTS = sorted((PROJECT / "schemas" / "published").glob("*.json"))
TREE = tree()
GROUPS = "|".join(name for name, command in TREE.commands.items() if hasattr(command, "commands"))


def lines_of(path: Path) -> Iterator[str]:
    """The command lines that a file names: between backticks, and in a page also without the program or in blocks."""
    text = path.read_text()
    yield from re.findall(r"`nodeledger ([a-z-][^`\n]*)`", text)
    if path.suffix == ".md":
        yield from re.findall(rf"`((?:{GROUPS}) [^`\n]*)`", text)
        yield from re.findall(r"^ *nodeledger ([a-z-].*)$", text, re.MULTILINE)


def fault(line: str) -> str | None:
    """What is wrong with a command line: a word that is no command, or a flag that the command does not have."""
    command: Any = TREE
    for word in re.split(r"[#|<>]", line)[0].split():
        if word.startswith("-"):
            if word.partition("=")[0] not in {
                flag for one in command.params for flag in (*one.opts, *one.secondary_opts)
            }:
                return f"{command.name} has no flag {word}"
        elif hasattr(command, "commands") and word != "…":
            command = command.commands.get(word.rstrip(","))
            if command is None:
                return f"there is no command {word}"
    return None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_that_a_page_names_exists_with_its_subcommands_and_flags(path: Path) -> None:
    assert {line: why for line in lines_of(path) if (why := fault(line))} == {}


def test_every_command_that_the_program_or_the_contract_names_exists() -> None:
    named = [line for path in (*SOURCES, *DOCUMENTS) for line in lines_of(path)]
    assert {line: why for line in named if (why := fault(line))} == {}


def test_command_lines_are_found_in_text_in_blocks_and_without_the_program() -> None:
    found = {line for path in (*PAGES, *SOURCES) for line in lines_of(path)}
    assert {"topology apply", "parked push N", "dead discard"} <= found
    assert any(line.startswith("bench --growth --plot") for line in found), "in a block"
    assert any(line.startswith("db upgrade") for line in lines_of(PROJECT / "worker/operations/errors.py"))


@pytest.mark.parametrize(
    "line", ["conjure", "dead conjure 4", "send --conjure", "dead replay 4 --rates 3", "topology reshard --force"]
)
def test_a_command_that_is_not_there_is_found(line: str) -> None:
    assert fault(line)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_setting_that_a_page_names_exists(path: Path) -> None:
    known = {variable(name) for name in Settings.model_fields}
    named = set(re.findall(r"NODELEDGER_[A-Z_]+[A-Z]", path.read_text()))
    assert {name for name in named if name.removesuffix("_FILE") not in known} == set()


def read_settings(tree: ast.AST) -> Iterator[str]:
    """The settings that a module reads: ``settings.name``, ``load_settings().name``, ``settings.required("name")``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(of, ast.Name) and of.id in {"settings", "load_settings"}:
                yield node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "required":
            yield from (str(given.value) for given in node.args if isinstance(given, ast.Constant))


def test_every_setting_is_read_by_somebody() -> None:
    readers = (PROJECT / "worker").rglob("*.py")
    read = {
        name for path in readers if path.name != "settings.py" for name in read_settings(ast.parse(path.read_text()))
    }
    assert set(Settings.model_fields) - read == set()
