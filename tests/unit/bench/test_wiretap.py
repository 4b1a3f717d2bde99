from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from worker.bench.wiretap import Conversation


def said(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("!I", len(payload) + 4) + payload


def prepared(name: bytes, text: bytes) -> bytes:
    return said(b"P", name + b"\0" + text + b"\0" + b"\0\0")


def bound(name: bytes) -> bytes:
    return said(b"B", b"\0" + name + b"\0" + b"\0" * 6) + said(b"E", b"\0\0\0\0\0") + said(b"S", b"")


BATCH = b"".join(
    (
        prepared(b"read", b"SELECT to_json(clock_timestamp())"),
        prepared(b"other", b"SELECT 1"),
        prepared(b"record", b"WITH x AS (INSERT INTO nodeledger.command VALUES (1))"),
        bound(b"read"),
        said(b"Q", b"BEGIN;\0"),
        bound(b"other"),
        bound(b"record"),
        said(b"Q", b"COMMIT;\0"),
    )
)
UNWRITTEN = bound(b"read") + bound(b"other")


def test_a_batch_is_counted_from_what_it_reads_to_what_it_records() -> None:
    conversation = Conversation([])
    conversation.hear(BATCH + UNWRITTEN + bound(b"read") + bound(b"record") + bound(b"other"))
    assert conversation.counts == [3, 2]


@given(st.lists(st.integers(1, 40), min_size=1))
def test_it_does_not_matter_in_which_pieces_a_conversation_is_heard(sizes: list[int]) -> None:
    conversation = Conversation([])
    rest, turn = BATCH * 2, 0
    while rest:
        size = sizes[turn % len(sizes)]
        conversation.hear(rest[:size])
        rest, turn = rest[size:], turn + 1
    assert conversation.counts == [3, 3]
