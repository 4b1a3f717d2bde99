"""Text that somebody else wrote, in every form in which it reaches a terminal, a log or a page."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.common import console
from worker.hypervisor.connection import Connection, ConnectionLost
from worker.hypervisor.documents import Oddities
from worker.telemetry.logs import configure_logging, get_logger

# C0, delete and C1 controls, marks that turn the direction of text, separators of lines, tags, and what surrounds them.
NASTY = st.text(
    st.one_of(
        st.characters(max_codepoint=0x20),
        st.characters(min_codepoint=0x7F, max_codepoint=0xA0),
        st.sampled_from("\u200e\u200f\u202a\u202e\u2066\u2069\u2028\u2029\ufeff\U000e0001\u061c[]<>&\"'\\"),
        st.characters(codec="utf-8"),
    ),
    max_size=30,
)


def shown(form: Callable[[], Any]) -> str:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        form()
    return out.getvalue() + err.getvalue()


def steers_nothing(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@given(NASTY, NASTY)
def test_whatever_others_wrote_steers_no_terminal_in_any_form_of_output(name: str, value: str) -> None:
    row = {"name": name, "value": [value, {name: value}]}
    for form in (
        lambda: console.print_rows([row], "name value", as_json=False),
        lambda: console.print_rows([row], "name value", as_json=True),
        lambda: console.print_document({name: value, "more": row}, as_json=False),
        lambda: console.print_document({name: value, "more": row}, as_json=True),
        lambda: console.print_json_line({name: value}),
        lambda: console.note(value),
    ):
        assert steers_nothing(shown(form))
    rows = shown(lambda: console.print_rows([row], "name value", as_json=False))
    assert rows.count("\n") == 2, "nothing forges a line of a table"
    assert json.loads(shown(lambda: console.print_json_line({name: value}))) == {name: value}


@pytest.mark.parametrize("style", ["json", "console"])
@given(name=NASTY, value=NASTY)
def test_whatever_others_wrote_is_one_line_of_the_log(style: Any, name: str, value: str) -> None:
    output = io.StringIO()
    configure_logging("info", style, output)
    try:
        get_logger("worker").info(value, **{f"x{name}": value}, headers={name: [value]})
    finally:
        configure_logging("info", "json", sys.__stderr__)
    text = output.getvalue()
    assert steers_nothing(text)
    assert text.count("\n") == 1


@given(NASTY)
def test_whatever_a_hypervisor_says_is_one_line(said: str) -> None:
    oddities = Oddities()
    oddities.tell(said)
    assert all(told.isprintable() and len(told) <= 255 for told in oddities.told)
    error = libvirt.libvirtError("")
    error.err = (38, 7, said, 2, None, None, None, 0, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libvirt, "open", _raise(error))
        with pytest.raises(ConnectionLost) as lost:
            Connection("test:///default")
    assert str(lost.value).isprintable()


def _raise(error: Exception) -> Callable[[str], None]:
    def fail(_uri: str) -> None:
        raise error

    return fail
