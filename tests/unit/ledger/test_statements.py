from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from worker.ledger import letters, parked_rows, rows, sights, statements
from worker.ledger.statements import StatementError, bound, numbered, placeholders, sql, statement

WORKER = Path(statements.__file__).parents[1]
STATEMENTS = sorted(path.stem for path in (WORKER / "ledger" / "sql").glob("*.sql"))
NAMED = [name for name in STATEMENTS if placeholders(sql(name))]


class Call(NamedTuple):
    """One place where a statement is given its values: what each keyword's value is."""

    statement: str
    values: dict[str, Any]
    at: str


def calls(function: str) -> Iterator[tuple[ast.Call, Path]]:
    for path in WORKER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                yield node, path


def columns_of(value: ast.expr) -> Any:
    """The columns that an expression gives, if it is a function of `rows` that makes some."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
        return None
    if value.func.id == "columns":
        assert isinstance(value.args[0], ast.Name)
        return getattr(rows, value.args[0].id, None) or getattr(sights, value.args[0].id)
    for module in (rows, parked_rows, letters):
        if made := getattr(module, value.func.id, None):
            return getattr(module, made.__annotations__["return"])
    return None


@cache
def bindings() -> list[Call]:
    found = []
    for call, path in calls("bound"):
        name = call.args[0]
        assert isinstance(name, ast.Constant), f"{path.name}:{call.lineno} binds a statement that cannot be told"
        if all(keyword.arg for keyword in call.keywords):
            values = {str(keyword.arg): columns_of(keyword.value) for keyword in call.keywords}
            found.append(Call(str(name.value), values, f"{path.name}:{call.lineno}"))
    return found


def given(call: Call) -> list[str]:
    return [
        placeholder
        for key, kind in call.values.items()
        for placeholder in ([key] if kind is None else [f"{key}.{field}" for field in kind._fields])
    ]


@pytest.mark.parametrize("call", bindings(), ids=lambda call: f"{call.statement} in {call.at}")
def test_every_place_that_uses_a_statement_gives_exactly_its_parameters(call: Call) -> None:
    numbered(sql(call.statement), {name: number for number, name in enumerate(given(call), 1)})


def test_every_statement_with_named_parameters_is_used_by_them() -> None:
    profiles = {"put_node", "put_profile"}  # their common values come as one mapping
    assert {call.statement for call in bindings()} | profiles == set(NAMED)


@pytest.mark.parametrize("name", STATEMENTS)
def test_parameters_by_position_are_few_and_complete(name: str) -> None:
    numbers = {int(token["numbered"]) for token in statements._TOKEN.finditer(sql(name)) if token["numbered"]}
    assert not (numbers and placeholders(sql(name)))
    assert numbers == set(range(1, len(numbers) + 1))
    assert len(numbers) <= 3


@pytest.mark.parametrize("name", NAMED)
def test_a_column_is_written_where_its_name_says(name: str) -> None:
    """`INSERT INTO t (a, b) SELECT x.a, x.b`: two columns of one type could change places unseen."""
    text = re.sub(r"--[^\n]*", "", sql(name))
    for into, selected in re.findall(
        r"INSERT INTO [\w.]+(?: AS \w+)?\s*\(([^()]*)\)\s*SELECT (.*?)\s+(?:FROM|WHERE)\b", text, re.DOTALL
    ):
        targets = [column.strip() for column in into.split(",")]
        sources = [column.strip() for column in selected.split(",")]
        assert len(targets) == len(sources)
        for target, source in zip(targets, sources, strict=True):
            if named := re.fullmatch(r"(?:\w+\.)?(\w+)(?:::[\w\[\]]+)?|\S+ AS (\w+)", source):
                assert target == named[1] or target == named[2]


class Pair(NamedTuple):
    id: list[int]
    name: list[str]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(text: str) -> None:
        statements._resolved.cache_clear()
        monkeypatch.setattr(statements, "sql", lambda _name: text)

    yield write
    statements._resolved.cache_clear()


UNNEST = "SELECT * FROM unnest(:pairs.id::bigint[], :pairs.name::text[]) AS x (id, name)"


def test_columns_and_single_values_take_the_numbers_of_their_order(written: Any) -> None:
    written(f"{UNNEST} WHERE x.id > :after AND :after > 0")
    text, *arguments = bound("s", after=7, pairs=Pair([1, 2], ["a", "b"]))
    assert text == "SELECT * FROM unnest($2::bigint[], $3::text[]) AS x (id, name) WHERE x.id > $1 AND $1 > 0"
    assert arguments == [7, [1, 2], ["a", "b"]]


def test_no_rows_are_as_many_columns(written: Any) -> None:
    written(UNNEST)
    assert bound("s", pairs=rows.columns(Pair, []))[1:] == ((), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{UNNEST} WHERE x.id > :afer", "nothing is given as :afer; nothing uses :after"),
        (UNNEST, "nothing uses :after"),
        ("SELECT :after, :pairs.id", "nothing uses :pairs.name"),
        (f"{UNNEST} WHERE x.id > :after LIMIT :limit", "nothing is given as :limit"),
        (f"{UNNEST} WHERE x.id > :after AND x.id = :pairs.ident", "nothing is given as :pairs.ident"),
        (f"{UNNEST} WHERE x.id > :after LIMIT $1", "$1 has no name"),
        (
            f"{UNNEST} WHERE x.id > :after".replace("(id, name)", "(name, id)"),
            "gives (id, name) and names them (name, id)",
        ),
        (f"{UNNEST} WHERE x.id > :after".replace(" AS x (id, name)", ""), "gives (id, name) and names them ()"),
    ],
)
def test_what_is_missing_unused_or_misnamed_is_an_error_at_the_first_use(written: Any, text: str, said: str) -> None:
    written(text)
    with pytest.raises(StatementError, match=re.escape(f"s.sql: {said}" if said.startswith("n") else said)):
        bound("s", after=7, pairs=Pair([1], ["a"]))


@pytest.mark.parametrize(
    "untouched",
    [
        "a::text",
        "':no'",
        "'it''s :no'",
        r"E'\' :no'",
        '":no"',
        "-- it's :no\n",
        "/* :no\n :no */",
        "$$ :no $$",
        "$body$ ':no' $$ $body$",
        "x::timestamptz::date",
    ],
)
def test_casts_texts_and_comments_hold_no_parameters(untouched: str) -> None:
    text = f"SELECT :yes {untouched} AND :yes::int[]"
    assert placeholders(text) == ["yes"]
    assert numbered(text, {"yes": 1}) == f"SELECT $1 {untouched} AND $1::int[]"


def test_a_statement_with_names_is_not_used_by_position() -> None:
    with pytest.raises(StatementError, match=r"history.sql has named parameters, give them by name: before, node"):
        statement("history")


def test_every_statement_is_there_once_one_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    vars(statements)["_texts"].cache_clear()
    sql("shard_owners")
    monkeypatch.setattr(statements, "_FOLDER", Path("/nowhere"))
    assert all(map(sql, STATEMENTS))
