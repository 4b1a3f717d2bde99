from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.ports import DeadLetter, Whole
from worker.ledger.letters import clean, digest, fingerprint, headers_json, is_cut, known_by

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("resources.vcpus: 17 is less than 1", "resources.vcpus: 4 is less than 1"),
        (
            "instance 0199c0de-0000-7000-8000-000000000001 is bad",
            "instance 7199c0de-0000-4000-8000-00000000000f is bad",
        ),
        ("Traceback:\n  File 'a'\nKeyError: 'x'", "Traceback:\n  File 'b'\n  File 'c'\nKeyError: 'y'"),
    ],
)
def test_letters_with_one_cause_share_a_fingerprint(one: str, other: str) -> None:
    assert fingerprint("poison", one) == fingerprint("poison", other)


def test_other_reasons_and_other_sentences_have_other_fingerprints() -> None:
    assert len({fingerprint("poison", "a"), fingerprint("malformed", "a"), fingerprint("poison", "b")}) == 3


def test_equal_bodies_alone_share_a_digest() -> None:
    assert digest(b"a") == digest(b"a") != digest(b"b")


@given(st.text(alphabet=st.characters()))
def test_no_text_keeps_what_postgres_cannot_hold(text: str) -> None:
    assert "\0" not in clean(text)
    clean(text).encode()


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_any_headers_become_json_that_jsonb_accepts(headers: dict[str, object]) -> None:
    text = headers_json(headers)
    assert isinstance(json.loads(text, parse_constant=pytest.fail), dict)
    assert "\\u0000" not in text


def test_headers_keep_their_values() -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    headers = {"text": "a", "bytes": b"b", "number": 1, "list": [True, None], "table": {"at": at}}
    assert json.loads(headers_json(headers)) == {
        "text": "a", "bytes": "b", "number": 1, "list": [True, None], "table": {"at": str(at)}
    }  # fmt: skip


def test_a_letter_with_the_head_of_a_body_is_known_by_the_whole_and_says_what_it_was() -> None:
    whole = Whole.of(b"x" * 100)
    letter = DeadLetter(b"xx", "too_large", "", headers={"a": "b"}, whole=whole)
    assert known_by(letter) == digest(b"x" * 100) != digest(b"xx")
    headers = json.loads(headers_json(letter.headers, letter.whole))
    assert headers == {"a": "b", "x-nodeledger-size": 100, "x-nodeledger-digest": str(whole.digest)}
    assert is_cut(headers)
    assert not is_cut(letter.headers)
    assert not is_cut(None)
