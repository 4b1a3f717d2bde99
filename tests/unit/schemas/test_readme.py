"""The page for producers names every code there is, once and in its place, and none besides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

import schemas
from schemas import KINDS, DeadReason, ReasonCode, Status
from schemas.outcomes import NoticeCode

PAGE = (Path(schemas.__file__).parent / "README.md").read_text()
CODES = {
    "Kinds": sorted(KINDS),
    "Statuses": sorted(get_args(Status)),
    "Reasons": sorted(get_args(ReasonCode)),
    "Dead letters": sorted(get_args(DeadReason)),
    "Warnings": sorted(get_args(NoticeCode)),
}


def paragraphs(section: str) -> list[tuple[str, str]]:
    """The codes that a section has a paragraph for, each with what it says."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\*\*`([^`]+)`\*\*(.*?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("section", CODES)
def test_every_code_has_one_paragraph(section: str) -> None:
    assert sorted(code for code, _ in paragraphs(section)) == CODES[section]


@pytest.mark.parametrize("section", ["Reasons", "Dead letters"])
def test_every_refusal_says_what_to_do_about_it(section: str) -> None:
    assert [code for code, told in paragraphs(section) if "Remedy:" not in told] == []


def test_every_section_is_held_against_the_code() -> None:
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == ["The client", *CODES]
