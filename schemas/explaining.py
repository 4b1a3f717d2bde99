"""What is wrong with a message, in a line that names fields and faults and repeats no value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

_SHOWN_FAULTS: Final = 8
_SHOWN_CHARACTERS: Final = 64

_OWN_WORDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "union_tag_not_found": "is missing",
    "union_tag_invalid": "should be a string",
}


def describe(error: ValidationError, document: object) -> str:
    """Name each wrong field of a command and its fault.

    ``document`` is the message as plain JSON values. It tells the fields from
    the names that the validator gives to the alternatives of a union; of these,
    only the faults of the one that came furthest are named.
    """
    faults: dict[tuple[int | str, ...], list[str]] = {}
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        if fault["type"].startswith("union_tag"):
            path: tuple[int | str, ...] = ("kind",)
        else:
            path = _fields(fault["loc"][1:], document, missing=fault["type"] == "missing")
        words = _OWN_WORDS.get(fault["type"]) or _plain(fault["msg"])
        known = faults.setdefault(path, [])
        if words not in known:
            known.append(words)
    inner = {path[:depth] for path in faults for depth in range(1, len(path))}
    lines = [
        f"{'.'.join(shown(str(part)) for part in path)}: {' or '.join(words)}" if path else words[0]
        for path, words in faults.items()
        if path not in inner
    ]
    more = len(lines) - _SHOWN_FAULTS
    return "; ".join(lines[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")


def shown(name: str) -> str:
    """A field's name as it may stand in a log: short, on one line, in ASCII."""
    short = ascii(name[:_SHOWN_CHARACTERS])[1:-1]
    return short if len(name) <= _SHOWN_CHARACTERS else f"{short}..."


def _fields(location: Sequence[int | str], document: object, *, missing: bool) -> tuple[int | str, ...]:
    """The parts of a location that are in the document, and what is missing there."""
    path: list[int | str] = []
    value: Any = document
    for part in location:
        if part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif not (missing and part == location[-1]):
            continue
        path.append(part)
    return tuple(path)


def _plain(message: str) -> str:
    for prefix in ("Value error, ", "Input ", "String ", "List ", "Dictionary "):
        if message.startswith(prefix):
            return message.removeprefix(prefix)
    return message
