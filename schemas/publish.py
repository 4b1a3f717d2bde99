"""Writes the contract for producers in other languages: JSON Schemas and an AsyncAPI document.

``python -m schemas.publish`` writes ``schemas/published/``; with ``--check`` it
only says, by its exit status, whether these files are current.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema

from schemas.asyncapi import asyncapi
from schemas.commands import MODELS
from schemas.outcomes import DeadReason, Outcome

FOLDER: Final = Path(__file__).parent / "published"

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _Plain(GenerateJsonSchema):
    """Schemas without a title for every field, which would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's hook
        return False


def documents() -> dict[str, str]:
    """The published files: name and content."""
    shared, names = _definitions({**MODELS, "outcome": Outcome})
    outcome = names.pop("outcome")
    files: dict[str, Any] = {
        "asyncapi.json": asyncapi(shared, names, list(get_args(DeadReason))),
        "command.json": {
            "$schema": _DIALECT,
            "$id": "urn:nodeledger:1:command",
            "description": "Any command; `kind` tells which.",
            "oneOf": [{"$ref": f"#/$defs/{name}"} for name in names.values()],
            "$defs": _local({name: schema for name, schema in shared.items() if name != outcome}),
        },
        "outcome.json": _document("outcome", shared, outcome),
    }
    for kind, name in names.items():
        files[f"{kind}.json"] = _document(kind, shared, name)
    return {name: json.dumps(files[name], indent=2, ensure_ascii=False) + "\n" for name in sorted(files)}


def stale(folder: Path = FOLDER) -> list[str]:
    """The names of published files that are missing, different or no longer published."""
    expected = documents()
    present = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.json")}
    return sorted(name for name in expected.keys() | present.keys() if expected.get(name) != present.get(name))


def write(folder: Path = FOLDER) -> list[str]:
    """Bring the published files up to date, and return the names of those that changed."""
    expected = documents()
    changed = stale(folder)
    folder.mkdir(exist_ok=True)
    for name in changed:
        if name in expected:
            (folder / name).write_text(expected[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return changed


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status is 1 where ``--check`` finds files that are not current."""
    parser = argparse.ArgumentParser(prog="python -m schemas.publish", description="Write the published schemas.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is not current")
    check = parser.parse_args(arguments).check
    names = stale() if check else write()
    for name in names:
        sys.stdout.write(f"{name} is not current\n" if check else f"{name} written\n")
    return 1 if check and names else 0


def _definitions(models: dict[str, type[Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The schemas of all models and of what they are made of, and the name of each model's own."""
    inputs: list[tuple[str, JsonSchemaMode, CoreSchema]] = [
        (key, "validation", TypeAdapter(model).core_schema) for key, model in models.items()
    ]
    generator = _Plain(ref_template="#/components/schemas/{model}")
    roots, shared = generator.generate_definitions(inputs)
    names = {key: roots[key, "validation"]["$ref"].rpartition("/")[2] for key in models}
    return {name: _worded(schema) for name, schema in sorted(shared.items())}, names


def _document(key: str, shared: dict[str, Any], name: str) -> dict[str, Any]:
    used = _reachable(shared, name) - {name}
    parts = _local({part: shared[part] for part in sorted(used)})
    own = _local({name: shared[name]})[name]
    return {"$schema": _DIALECT, "$id": f"urn:nodeledger:1:{key}", **own, **({"$defs": parts} if parts else {})}


def _reachable(shared: dict[str, Any], name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(shared[part]))
    return found


def _local(schemas: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(schemas).replace('"#/components/schemas/', '"#/$defs/')
    local: dict[str, Any] = json.loads(text)
    return local


def _worded(schema: Any) -> Any:
    """Descriptions in plain sentences: docstrings mark code with two backticks and break lines."""
    if isinstance(schema, list):
        return [_worded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: " ".join(part.replace("``", "`").split())
        if key == "description" and isinstance(part, str)
        else _worded(part)
        for key, part in schema.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
