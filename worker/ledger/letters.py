"""How a dead letter is made fit for the table: known by its digest, grouped by its cause, cleaned of its traps."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic_core import to_json

from worker.engine.ports import DIGEST_HEADER, SENDERS_HEADER, SIZE_HEADER, Whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker.engine.ports import DeadLetter

MAX_DETAIL: Final = 16 * 1024
MAX_LABEL: Final = 255
_MAX_SUMMARY: Final = 200
_MAX_DEPTH: Final = 8

_VARIABLE: Final = (
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<hex>"),
    (re.compile(r"'[^'\n]*'|\"[^\"\n]*\""), "<text>"),
    (re.compile(r"\d+(?:\.\d+)*"), "<n>"),
    (re.compile(r"\s+"), " "),
)


class LetterColumns(NamedTuple):
    """Rows of ``dead_letter``, column by column."""

    digest: Sequence[UUID]
    reason: Sequence[str]
    detail: Sequence[str]
    fingerprint: Sequence[str]
    node: Sequence[str | None]
    kind: Sequence[str | None]
    command: Sequence[UUID | None]
    body: Sequence[bytes]
    headers: Sequence[str]
    attempts: Sequence[int]


def letter_columns(letters: Sequence[DeadLetter]) -> LetterColumns:
    """Letters, those of one digest and reason as one: the latest of those that went through the fewest hands."""
    arrivals = [((known_by(letter), clean(letter.reason, MAX_LABEL)), letter) for letter in letters]
    counts = Counter(key for key, _ in arrivals)
    latest: dict[tuple[UUID, str], DeadLetter] = {}
    for key, letter in arrivals:
        if key not in latest or len(_senders(letter)) <= len(_senders(latest[key])):
            latest[key] = letter
    return LetterColumns(
        digest=[key for key, _ in latest],
        reason=[reason for _, reason in latest],
        detail=[clean(letter.detail) for letter in latest.values()],
        fingerprint=[fingerprint(reason, letter.detail) for (_, reason), letter in latest.items()],
        node=[None if letter.node is None else clean(letter.node, MAX_LABEL) for letter in latest.values()],
        kind=[None if letter.kind is None else clean(letter.kind, MAX_LABEL) for letter in latest.values()],
        command=[letter.command for letter in latest.values()],
        body=[letter.body for letter in latest.values()],
        headers=[headers_json(letter.headers, letter.whole) for letter in latest.values()],
        attempts=[counts[key] for key in latest],
    )


def digest(body: bytes) -> UUID:
    """What a body is known by: BLAKE2b of 128 bits."""
    return Whole.of(body).digest


def known_by(letter: DeadLetter) -> UUID:
    """What tells a letter from others: the digest of its body, also where only the head is kept, and its first sender.

    So the same bytes of somebody else are another letter, while what a replay
    brings back is the one that was replayed.
    """
    content = digest(letter.body) if letter.whole is None else letter.whole.digest
    first = _senders(letter).partition("\n")[0]
    return digest(content.bytes + first.encode("utf-8", "replace")) if first else content


def _senders(letter: DeadLetter) -> str:
    """The users through whose hands a letter went; the first names itself, the broker vouches for the last."""
    told = letter.headers.get(SENDERS_HEADER)
    return told if isinstance(told, str) else ""


def fingerprint(reason: str, detail: str) -> str:
    """What letters with the same cause have in common: the reason, and the detail without its particulars.

    Of a detail with several lines (a traceback) the last one tells the cause.
    """
    lines = [line for line in clean(detail).splitlines() if line.strip()]
    summary = lines[-1][: _MAX_SUMMARY * 4] if lines else ""
    for pattern, stand_in in _VARIABLE:
        summary = pattern.sub(stand_in, summary)
    return f"{clean(reason)}: {summary.strip()[:_MAX_SUMMARY]}"


def clean(text: str, limit: int = MAX_DETAIL) -> str:
    """The text without NUL and lone surrogates, which no database text can hold, cut to a limit in characters."""
    return text[:limit].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def headers_json(headers: Mapping[str, object], whole: Whole | None = None) -> str:
    """A message's headers as JSON that ``jsonb`` accepts; with the size and digest of a body that was cut."""
    cut = {} if whole is None else {SIZE_HEADER: whole.size, DIGEST_HEADER: str(whole.digest)}
    return to_json(_plain({**headers, **cut}, _MAX_DEPTH)).decode()


def is_cut(headers: Mapping[str, object] | None) -> bool:
    """Whether an archived letter has only the head of its body, by its headers."""
    return headers is not None and SIZE_HEADER in headers


def _plain(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    if isinstance(value, (bytes, bytearray)):
        return clean(value.decode("utf-8", "replace"))
    if depth and isinstance(value, dict):
        return {clean(str(key), MAX_LABEL): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(item, depth - 1) for item in value]
    return clean(str(value))
