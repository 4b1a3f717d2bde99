"""The list of protections that are taken out on the long run is one that can be worked through."""

from __future__ import annotations

import re

import pytest

from tests.security.take_out import PROJECT, Protection, places, protections

PAGE = (PROJECT / "deploy" / "security.md").read_text("utf-8")


@pytest.mark.parametrize("protection", protections(), ids=lambda protection: protection.name)
def test_every_protection_can_be_taken_out_and_its_tests_are_there_and_on_the_page(protection: Protection) -> None:
    whole = (PROJECT / protection.file).read_text("utf-8")
    assert protection.taken_out(whole) != whole
    assert protection.tests
    assert set(protection.tests) <= places().keys()
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named & set(protection.tests), "no row of the page names one of its tests"


def test_no_protection_is_listed_twice() -> None:
    names = [protection.name for protection in protections()]
    assert len(names) == len(set(names))
