"""Which characters a text may hold: the model and the published pattern say the same, in every version of Unicode."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import MalformedCommandError, parse_command
from schemas.examples import COMMANDS
from schemas.publish import documents

PROJECT = json.loads(documents()["claim.json"])["properties"]["project"]
NONCHARACTERS = [*range(0xFDD0, 0xFDF0), *(plane << 16 | end for plane in range(17) for end in (0xFFFE, 0xFFFF))]
REFUSED = {
    *range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000), *NONCHARACTERS, *range(0x40000, 0xE0000)
}  # fmt: skip


def taken(project: str) -> bool:
    try:
        parse_command(json.dumps({**COMMANDS["claim"], "project": project}).encode())
    except MalformedCommandError as error:
        assert "project: holds control or unassigned characters" in error.detail  # noqa: PT017 - either is right
        return False
    return True


@pytest.mark.parametrize(
    "text", ["a\u200cb", "a\u200db", "\u3000", "a b", "\xa0", "\ue000", "\U0001f469\u200d\U0001f680"]
)
def test_format_characters_and_spaces_are_taken(text: str) -> None:
    assert taken(text)


@given(st.characters(exclude_categories=["Cs"]))
def test_the_model_and_the_published_pattern_take_the_same(letter: str) -> None:
    assert taken(letter) == (re.fullmatch(PROJECT["pattern"], letter) is not None) == (ord(letter) not in REFUSED)


def test_the_published_pattern_refuses_what_its_documentation_names_and_nothing_else() -> None:
    found = {point for point in range(0x110000) if re.fullmatch(PROJECT["pattern"], chr(point)) is None}
    assert found == REFUSED


def test_the_published_pattern_refuses_a_text_for_one_of_its_characters() -> None:
    assert not taken("a\ufdd0b")
    assert not taken("a\nb")
    assert not taken("\x00")
