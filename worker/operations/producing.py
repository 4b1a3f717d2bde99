"""From a line of input to a command that may be published, or to what is wrong with it. Pure but for the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from pydantic_core import from_json, to_json

from schemas import MalformedCommandError, parse_command
from schemas.asking import uuid7
from schemas.client import Message
from schemas.commands import VERSION
from schemas.explaining import shown
from schemas.parsing import repeated_key
from worker.errors import NodeledgerError


class RefusedLineError(NodeledgerError, ValueError):
    """A line that is not sent; the text names the field and the fault."""


def complete(line: bytes) -> Message:
    """Fill in ``version``, ``id`` and ``issued_at`` where they are missing, and check the command.

    Raises:
        RefusedLineError: the line is not a command of the contract.
    """
    given = _object(line)
    if (name := repeated_key(line)) is not None:
        raise RefusedLineError(f"malformed: {shown(name)}: is given twice")
    filled = {"version": VERSION, "id": str(uuid7()), **given}
    filled.setdefault("issued_at", datetime.now(UTC).isoformat())
    body = to_json(filled)
    try:
        command = parse_command(body)
    except MalformedCommandError as error:
        raise RefusedLineError(f"{error.reason}: {error.detail}") from None
    return Message(body, command.node, command.kind, command.id)


def raw(line: bytes) -> Message:
    """The line as it is, as long as a node can be read from it: what is wrong otherwise is left to the worker.

    Raises:
        RefusedLineError: the line is not a JSON object that names a node.
    """
    given = _object(line)
    node = given.get("node")
    if not isinstance(node, str) or not _encodable(node):
        raise RefusedLineError("node: is missing or not text, so that the command cannot be routed")
    return Message(line, node, str(given.get("kind"))[:255], _uuid(given.get("id")))


def _object(line: bytes) -> dict[str, object]:
    try:
        given = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise RefusedLineError(f"not JSON: {error}") from None
    if not isinstance(given, dict):
        raise RefusedLineError("not a JSON object")
    return given


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
