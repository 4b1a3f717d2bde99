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
        prepared(b"lock", b"SELECT 1 FOR UPDATE"),
        prepared(b"record", b"WITH x AS (INSERT INTO nodeledger.command VALUES (1))"),
        said(b"Q", b"BEGIN;\0"),
        bound(b"lock"),
        bound(b"record"),
        said(b"Q", b"COMMIT;\0"),
    )
)
OTHER = said(b"Q", b"BEGIN;\0") + bound(b"lock") + said(b"Q", b"COMMIT;\0")
UNDONE = said(b"Q", b"BEGIN;\0") + bound(b"record") + said(b"Q", b"ROLLBACK;\0") + said(b"Q", b"COMMIT;\0")


def test_only_batches_that_were_committed_are_counted() -> None:
    conversation = Conversation([])
    conversation.hear(BATCH + OTHER + UNDONE + bound(b"record"))
    assert conversation.counts == [2]


@given(st.lists(st.integers(1, 40), min_size=1))
def test_it_does_not_matter_in_which_pieces_a_conversation_is_heard(sizes: list[int]) -> None:
    conversation = Conversation([])
    rest, turn = BATCH * 2, 0
    while rest:
        size = sizes[turn % len(sizes)]
        conversation.hear(rest[:size])
        rest, turn = rest[size:], turn + 1
    assert conversation.counts == [2, 2]
