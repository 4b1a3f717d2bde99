from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas import MalformedCommandError, parse_command
from schemas.publish import documents
from tests.property.producers import Json, commands, reordered

PUBLISHED = Draft202012Validator(json.loads(documents()["command.json"]))


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


@given(commands)
def test_what_is_read_can_be_written_and_read_again_as_the_same(document: Json) -> None:
    command = parse_command(encoded(document))
    again = parse_command(command.model_dump_json().encode())
    assert again == command
    assert again.fingerprint() == command.fingerprint()


@given(st.data(), commands)
def test_the_order_of_keys_is_no_content(data: st.DataObject, document: Json) -> None:
    other = data.draw(reordered(document))
    assert parse_command(encoded(other)).fingerprint() == parse_command(encoded(document)).fingerprint()


@given(document=commands, ascii_only=st.booleans())
def test_a_default_that_is_spelled_out_and_a_new_time_of_issue_are_no_content(
    *, document: Json, ascii_only: bool
) -> None:
    command = parse_command(encoded(document))
    spelled = {**command.model_dump(mode="json"), "issued_at": "2026-11-22T08:00:00+01:00"}
    body = json.dumps(spelled, ensure_ascii=ascii_only, indent=1).encode()
    assert parse_command(body).fingerprint() == command.fingerprint()


@given(commands, commands)
def test_other_content_has_another_fingerprint(one: Json, two: Json) -> None:
    first, second = parse_command(encoded(one)), parse_command(encoded(two))
    assume(first.model_copy(update={"issued_at": second.issued_at}) != second)
    assert first.fingerprint() != second.fingerprint()


@given(commands)
def test_what_is_read_fits_the_published_schema(document: Json) -> None:
    parse_command(encoded(document))
    PUBLISHED.validate(document)


@given(st.data(), commands)
def test_a_key_given_twice_is_refused_wherever_it_is(data: st.DataObject, document: Json) -> None:
    marked = encoded(data.draw(doubling(document)))
    body = marked.replace(b'"\\u0000', b'"')
    assume(body != marked)
    try:
        parse_command(body)
    except MalformedCommandError as error:
        assert "is given twice" in error.detail  # noqa: PT017 - a body that is accepted is told apart below
    else:
        raise AssertionError(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        parse_command(body)
    except MalformedCommandError as error:
        assert error.detail.isprintable()  # noqa: PT017 - most bytes are refused, and either is right


@given(st.data(), commands)
def test_a_damaged_command_is_read_or_refused(data: st.DataObject, document: Json) -> None:
    body = bytearray(encoded(document))
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=3)):
        body[place] = data.draw(st.integers(0, 255))
    try:
        parse_command(bytes(body))
    except MalformedCommandError as error:
        assert error.detail.isprintable()  # noqa: PT017 - as above


@st.composite
def doubling(draw: st.DrawFn, value: Any) -> Any:
    """The value with one key, somewhere, there a second time behind a mark."""
    if isinstance(value, list):
        place = draw(st.integers(0, len(value) - 1)) if value else None
        return [draw(doubling(part)) if number == place else part for number, part in enumerate(value)]
    if not isinstance(value, dict) or not value:
        return value
    key = draw(st.sampled_from(sorted(value)))
    if isinstance(value[key], dict | list) and value[key] and draw(st.booleans()):
        return {**value, key: draw(doubling(value[key]))}
    return {**value, f"\x00{key}": value[key]}
