"""From the bytes of a message to a command, or to the reason why it is none."""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json

from schemas.commands import COMMAND, KINDS, MAX_BODY_BYTES, VERSION, Command

Fault = Literal["malformed", "too_large", "unknown_kind", "unsupported_version"]

_SHOWN_ERRORS: Final = 8


class MalformedCommandError(ValueError):
    """A message that is no command of this version of the contract.

    ``reason`` is the dead letter's reason and ``detail`` names the field and
    the fault. ``id``, ``node`` and ``kind`` are what could still be read.
    """

    def __init__(
        self, reason: Fault, detail: str, *, id: UUID | None = None, node: str | None = None, kind: str | None = None  # noqa: A002 - the contract's name
    ) -> None:
        super().__init__(detail)
        self.reason: Fault = reason
        self.detail = detail
        self.id = id
        self.node = node
        self.kind = kind


def parse_command(body: bytes) -> Command:
    """Read one command.

    Raises:
        MalformedCommandError: the body is too large, is not JSON, has another
            version or kind, or a field that is missing, unknown or wrong.
    """
    if len(body) > MAX_BODY_BYTES:
        raise MalformedCommandError("too_large", f"{len(body)} bytes; at most {MAX_BODY_BYTES} are accepted")
    try:
        return COMMAND.validate_json(body)
    except ValidationError as error:
        raise _explain(body, error) from None


def _explain(body: bytes, error: ValidationError) -> MalformedCommandError:
    """Find out which fault it is; only reached by messages that failed."""
    try:
        document = from_json(body)
    except ValueError as fault:
        return MalformedCommandError("malformed", f"not JSON: {fault}")
    if not isinstance(document, dict):
        return MalformedCommandError("malformed", "not a JSON object")
    kind = document.get("kind")
    version = document.get("version")
    known = {"id": _uuid(document.get("id")), "node": _text(document.get("node")), "kind": _text(kind)}
    if type(version) is int and version != VERSION:
        return MalformedCommandError("unsupported_version", f"version {version}; this worker reads {VERSION}", **known)
    if isinstance(kind, str) and kind not in KINDS:
        return MalformedCommandError("unknown_kind", f"kind {kind[:64]!r}; known are {', '.join(sorted(KINDS))}", **known)
    return MalformedCommandError("malformed", describe(error), **known)


def describe(error: ValidationError) -> str:
    """Name each wrong field and its fault in one line, without the values."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'message'}: {fault['msg']}" for fault in faults]
    more = len(lines) - _SHOWN_ERRORS
    return "; ".join(lines[:_SHOWN_ERRORS]) + (f"; and {more} more" if more > 0 else "")


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value[:255] if isinstance(value, str) and value.isprintable() else None
