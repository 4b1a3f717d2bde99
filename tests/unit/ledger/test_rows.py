from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from worker.ledger.rows import names


def read(literal: str) -> list[str]:
    """What Postgres reads, of literals whose elements all stand in quotes."""
    elements = re.findall(r'"((?:[^"\\]|\\.)*)"', literal, re.DOTALL)
    assert literal == "{" + ",".join(f'"{element}"' for element in elements) + "}"
    return [re.sub(r"\\(.)", r"\1", element, flags=re.DOTALL) for element in elements]


@given(st.lists(st.text(st.sampled_from('ab"\\,{} /é'), min_size=1)))
def test_no_name_breaks_out_of_an_array(given_names: list[str]) -> None:
    assert read(names(given_names)) == given_names
