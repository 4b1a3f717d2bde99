from __future__ import annotations

import asyncpg
import pytest

from worker.ledger.errors import is_conflict, is_transient


def postgres_error(state: str, **fields: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError.new({"C": state, "M": "made by a test", **fields})
    assert isinstance(error, asyncpg.PostgresError)
    return error


@pytest.mark.parametrize(
    "state",
    [
        "08000", "08001", "08003", "08006", "25006", "25P03", "28P01", "3D000", "40001", "40P01", "42501", "42P01",
        "53100", "53200", "53300", "53400", "55P03", "57014", "57P01", "57P02", "57P03", "58030",
    ],
)  # fmt: skip
def test_the_worlds_faults_are_worth_another_attempt(state: str) -> None:
    assert is_transient(postgres_error(state))


@pytest.mark.parametrize("state", ["22003", "22P02", "23502", "23505", "23514", "42601", "54000", "P0001"])
def test_a_commands_own_faults_are_not(state: str) -> None:
    assert not is_transient(postgres_error(state))


@pytest.mark.parametrize(
    "error",
    [OSError("unreachable"), ConnectionResetError(), TimeoutError(), asyncpg.InterfaceError("connection is closed")],
)
def test_a_lost_connection_is_worth_another_attempt(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", [ValueError(), asyncpg.InterfaceError("pool is closed"), KeyError()])
def test_mistakes_are_not_the_worlds_doing(error: Exception) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("constraint", "conflicts"),
    [("node_name_key", True), ("instance_pkey", True), ("command_pkey", True), ("a_cpu_is_pinned_once", False)],
)
def test_only_rows_that_two_may_make_at_once_count_as_a_conflict(constraint: str, conflicts: bool) -> None:  # noqa: FBT001 - an expectation
    assert is_conflict(postgres_error("23505", n=constraint)) is conflicts
