"""Every outcome is held against the published schema, with every field refused that the schema does not name.

The schema lets readers pass over what a later release adds; a test must not.
"""

from __future__ import annotations

import json
from typing import Any, Final

from jsonschema import Draft202012Validator

from schemas.publish import documents


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    return closed | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else closed


_OUTCOME: Final = Draft202012Validator(_closed(json.loads(documents()["outcome.json"])))


def published(text: str | bytes) -> dict[str, Any]:
    """An outcome, which is as the published schema says and has no field besides."""
    outcome: dict[str, Any] = json.loads(text)
    _OUTCOME.validate(outcome)
    if (outcome["status"] == "dead") != ("dead_letter" in outcome):
        raise AssertionError(f"only a dead outcome tells why it is in the dead letters: {outcome}")
    return outcome
