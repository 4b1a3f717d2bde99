from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import schemas
from schemas import KINDS
from schemas.examples import COMMANDS, OUTCOME
from schemas.publish import FOLDER, documents, main, stale, write

DOCUMENTS: dict[str, Any] = {name: json.loads(text) for name, text in documents().items()}
EXAMPLES: dict[str, Any] = {**COMMANDS, "outcome": OUTCOME}


def test_the_published_documents_are_current() -> None:
    assert stale() == [], "run `python -m schemas.publish`"


def test_every_kind_and_the_outcome_have_a_schema() -> None:
    assert set(DOCUMENTS) == {f"{name}.json" for name in (*KINDS, "outcome", "command", "asyncapi")}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_each_example_fits_its_schema_and_something_unknown_does_not(name: str) -> None:
    schema = DOCUMENTS[f"{name}.json"]
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(EXAMPLES[name])
    assert not validator.is_valid({**EXAMPLES[name], "node": 17})
    assert validator.is_valid({**EXAMPLES[name], "unheard_of": 1}) == (name == "outcome")


def test_a_command_is_of_exactly_one_kind() -> None:
    validator = Draft202012Validator(DOCUMENTS["command.json"])
    for example in COMMANDS.values():
        validator.validate(example)
    assert not validator.is_valid({**COMMANDS["audit"], "kind": "unheard.of"})


def test_every_field_of_its_own_and_every_part_is_described() -> None:
    for name, document in DOCUMENTS.items():
        for part, schema in document.get("$defs", {}).items():
            assert schema["description"].endswith("."), (name, part)
    command = DOCUMENTS["delete.json"]["properties"]
    assert all(
        "description" in command[field] for field in ("id", "node", "issued_at", "dry_run", "revision", "verify")
    )
    assert "``" not in "".join(documents().values())


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = DOCUMENTS["asyncapi.json"]
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))):
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    assert set(document["channels"]["commands"]["messages"]) == KINDS


def test_check_finds_what_was_changed_removed_or_left_over(tmp_path: Path) -> None:
    assert write(tmp_path) == sorted(DOCUMENTS)
    assert stale(tmp_path) == []
    (tmp_path / "claim.json").write_text("{}")
    (tmp_path / "audit.json").unlink()
    (tmp_path / "forgotten.json").write_text("{}")
    assert stale(tmp_path) == ["audit.json", "claim.json", "forgotten.json"]
    assert write(tmp_path) == ["audit.json", "claim.json", "forgotten.json"]
    assert stale(tmp_path) == []
    assert main(["--check"]) == 0


def test_every_public_name_is_there_sorted_and_every_import_is_public() -> None:
    kinds = [str.isupper, lambda name: name[0].isupper(), str.islower]
    assert schemas.__all__ == sorted(schemas.__all__, key=lambda n: (next(i for i, k in enumerate(kinds) if k(n)), n))
    tree = ast.parse(Path(schemas.__file__).read_text())
    imported = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported == set(schemas.__all__)


def test_the_published_folder_lies_in_the_package() -> None:
    assert FOLDER.parent == Path(schemas.__file__).parent
