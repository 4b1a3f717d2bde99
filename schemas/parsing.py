"""From the bytes of a message to a command, or to the reason why it is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from schemas.base import UUID_PATTERN
from schemas.commands import COMMAND, KINDS, MAX_BODY_BYTES, MAX_OBJECTS, VERSION, Command
from schemas.errors import Fault, MalformedCommandError
from schemas.explaining import describe, shown

_SCALARS: Final = frozenset({str, int, bool, type(None), UUID, datetime, Decimal})
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_KIND: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UUID: Final = re.compile(UUID_PATTERN)

_validate = COMMAND.validator.validate_json


def parse_command(body: bytes) -> Command:
    """Read one command.

    Raises:
        MalformedCommandError: the body is too large or has too many parts, is not JSON, has another
            version or kind, or a field that is missing, unknown, wrong or
            given twice.
    """
    if len(body) > MAX_BODY_BYTES:
        raise MalformedCommandError("too_large", f"{len(body)} bytes; at most {MAX_BODY_BYTES} are accepted")
    if (objects := body.count(b"{")) > MAX_OBJECTS:
        read, detail = read_as_far(body), f"{objects} JSON objects; at most {MAX_OBJECTS} are accepted"
        raise MalformedCommandError("too_large", detail, id=read.id, node=read.node, kind=read.kind)
    try:
        command: Command = _validate(body)
    except ValidationError as error:
        raise _explain(body, error) from None
    if body.count(b'":') != _keys_of(command) or b" :" in body or b"\t:" in body or b"\n:" in body or b"\r:" in body:
        _refuse_repeated_keys(body, command)
    return command


def _keys_of(model: BaseModel) -> int:
    """How many keys a message without repetitions needs for this content.

    Each key is followed by ``":``, so that a message with exactly that many of
    them, and no colon set apart, repeats none. Any other is read once more.
    """
    given = model.__pydantic_fields_set__
    count = len(given)
    values = model.__dict__
    for name in given:
        value = values[name]
        if type(value) not in _SCALARS:
            count += _keys_in(value)
    return count


def _keys_in(value: object) -> int:
    if isinstance(value, BaseModel):
        return _keys_of(value)
    if isinstance(value, dict):
        return len(value) + sum(map(_keys_in, value.values()))
    if isinstance(value, list):
        return sum(map(_keys_in, value))
    return 0


def _refuse_repeated_keys(body: bytes, command: Command) -> None:
    if (name := repeated_key(body)) is not None:
        raise MalformedCommandError(
            "malformed", f"{shown(name)}: is given twice", id=command.id, node=command.node, kind=command.kind
        )


def repeated_key(text: bytes) -> str | None:
    """A key that an object of well-formed JSON has twice, of which readers would take one or the other."""
    repeated: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> None:
        names: set[str] = set()
        for name, _ in items:
            if name in names:
                repeated.append(name)
            names.add(name)

    json.loads(text, object_pairs_hook=pairs)
    return repeated[0] if repeated else None


def _explain(body: bytes, error: ValidationError) -> MalformedCommandError:
    """Find out which fault it is; only reached by messages that failed."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as fault:
        return MalformedCommandError("malformed", f"not JSON: {fault}")
    if not isinstance(document, dict):
        return MalformedCommandError("malformed", "not a JSON object")
    read = _readable(document)
    version = document.get("version")
    reason: Fault = "malformed"
    if type(version) is int and version != VERSION:
        reason, detail = "unsupported_version", f"version: is not {VERSION}, the one that is read here"
    elif isinstance(document.get("kind"), str) and document["kind"] not in KINDS:
        reason, detail = "unknown_kind", f"kind: is none of {', '.join(sorted(KINDS))}"
    else:
        detail = describe(error, document)
    return MalformedCommandError(reason, detail, id=read.id, node=read.node, kind=read.kind)


@dataclass(frozen=True, slots=True)
class Readable:
    """What can be told of a message that may be no command."""

    id: UUID | None = None
    node: str | None = None
    kind: str | None = None


def read_as_far(body: bytes) -> Readable:
    """Whose a message is and of which kind, as far as that can be read."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError:
        return Readable()
    return _readable(document) if isinstance(document, dict) else Readable()


def _readable(document: dict[str, object]) -> Readable:
    id, node, kind = (_matching(document.get(name), form) for name, form in _READABLE.items())
    return Readable(UUID(id) if id else None, node, kind)


_READABLE: Final = {"id": _UUID, "node": _NODE, "kind": _KIND}


def _matching(value: object, form: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None
