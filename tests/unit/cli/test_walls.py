from __future__ import annotations

import ast
from pathlib import Path

import pytest

import worker.cli

FILES = sorted(Path(worker.cli.__path__[0]).rglob("*.py"))
SPOKEN = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "transaction", "copy_records_to_table"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_command_speaks_to_the_database_by_itself(path: Path) -> None:
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert called & SPOKEN == set()
