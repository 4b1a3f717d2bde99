"""Text from anywhere, shown without anything that steers a terminal or forges a line."""

from __future__ import annotations

import re
from typing import Final

_NOT_NEWLINE: Final = re.compile(r"[^\n]+")


def escaped(text: str) -> str:
    """The text with every character that is not printable written as its Python escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def escaped_lines(text: str) -> str:
    """As :func:`escaped`, of a text that has lines of its own."""
    return _NOT_NEWLINE.sub(lambda line: escaped(line[0]), text)


def escaped_json(text: str) -> str:
    """JSON that means the same, with every character that is not printable written as JSON's escape.

    JSON itself demands that only of the first 32; its lines stay as they are.
    """
    return _NOT_NEWLINE.sub(lambda line: line[0] if line[0].isprintable() else _json_escapes(line[0]), text)


def _json_escapes(text: str) -> str:
    return "".join(char if char.isprintable() else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
