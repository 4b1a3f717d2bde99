from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from worker.cli.common import console


def test_nothing_printed_steers_the_terminal() -> None:
    shown = console.printable("\x1b[31mred\x07\u202egnp\n")
    assert shown == "\\x1b[31mred\\x07\\u202egnp\\n"
    assert shown.isprintable()


def test_a_table_is_aligned_without_boxes_where_standard_output_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"node": "cn-1", "used": 5}, {"node": "a-longer-name", "used": 12345}]
    console.print_rows(rows, "node #used", as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "NODE            USED",
        "cn-1               5",
        "a-longer-name  12345",
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_rows_are_one_array_with_an_element_a_line(capsys: pytest.CaptureFixture[str], count: int) -> None:
    rows = [{"n": number, "at": datetime(2026, 1, 2, tzinfo=UTC)} for number in range(count)]
    assert console.print_rows(iter(rows), "n at", as_json=True) == count
    printed = capsys.readouterr().out
    assert [row["n"] for row in json.loads(printed)] == list(range(count))
    assert sum(line.startswith("  {") for line in printed.splitlines()) == count


def test_what_is_noted_on_standard_error_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("\x1b[2J\x9b31m\u202egnp")
    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_progress_is_silent_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("working", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_json_that_is_printed_steers_no_terminal_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {"\x9b31m": "\x1b[2J\u202egnp\U000e0001\x7f \u2028", "é": "ü😀"}
    console.print_document(hostile, as_json=True)
    whole = capsys.readouterr().out
    console.print_rows([hostile], "é", as_json=True)
    rows = capsys.readouterr().out
    console.print_json_line(hostile)
    line = capsys.readouterr().out
    assert all(part.isprintable() for text in (whole, rows, line) for part in text.split("\n"))
    assert json.loads(whole) == json.loads(line) == json.loads(rows)[0] == hostile
    assert "ü😀" in line
