from __future__ import annotations

import ast
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "reference"


def test_the_reference_model_shares_no_code_with_what_it_judges() -> None:
    files = list(REFERENCE.glob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in {"worker", "schemas"}], file
