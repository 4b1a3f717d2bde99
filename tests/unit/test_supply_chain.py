"""What is installed is what is locked, and nothing is fetched while a worker runs."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGES: list[dict[str, Any]] = tomllib.loads((PROJECT / "uv.lock").read_text("utf-8"))["package"]
INSTALLING = (PROJECT / "deploy" / "lib" / "install.sh").read_text("utf-8")
_LICENCES = (PROJECT / "deploy" / "licences.md").read_text("utf-8")
LISTED = dict(re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \|", _LICENCES, re.MULTILINE))
del LISTED["package"]
FETCHING = {"urllib.request", "http.client", "requests", "httpx", "ftplib", "xmlrpc", "pip", "ensurepip"}


def needed() -> set[str]:
    """Everything that the project needs to run, its extras included, and what that needs in turn."""
    (own,) = (package for package in PACKAGES if package["name"] == "nodeledger")
    found: set[str] = set()
    waiting = [own]
    while waiting:
        package = waiting.pop()
        groups = [package.get("dependencies", []), *package.get("optional-dependencies", {}).values()]
        names = {one["name"] for group in groups for one in group} - found
        found |= names
        waiting += [other for other in PACKAGES if other["name"] in names]
    return found


def test_everything_that_is_locked_has_a_hash_and_comes_from_the_index() -> None:
    for package in PACKAGES:
        if package["name"] == "nodeledger":
            continue
        assert package["source"] == {"registry": "https://pypi.org/simple"}, package["name"]
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]) for file in files), package["name"]


def test_whatever_is_installed_is_held_against_the_locks_hashes() -> None:
    (installing,) = re.findall(r"^.*-m pip install.*$", INSTALLING, re.MULTILINE)
    assert "--require-hashes" in installing
    (syncing,) = re.findall(r"^.*/uv\" sync.*$", INSTALLING, re.MULTILINE)
    assert "--frozen" in syncing
    assert "--no-verify-hashes" not in INSTALLING


def test_every_package_that_is_locked_is_listed_with_its_licence() -> None:
    assert LISTED.keys() == needed()


@pytest.mark.parametrize("name", sorted(LISTED))
def test_the_licence_listed_is_the_one_a_package_declares(name: str) -> None:
    try:
        declared = metadata(name)["License-Expression"]
    except PackageNotFoundError:
        pytest.skip("not for this platform")
    assert declared in {None, LISTED[name]}


def test_nothing_is_fetched_while_a_worker_runs() -> None:
    for file in (path for part in ("worker", "schemas") for path in (PROJECT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = getattr(node, "module", None) or ""
            assert FETCHING.isdisjoint({module, *named, *(f"{module}.{name}" for name in named)}), file
