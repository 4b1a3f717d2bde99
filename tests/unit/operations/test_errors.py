from __future__ import annotations

import asyncpg
import pytest
from aiormq.exceptions import AMQPConnectionError

from worker.cli.common.errors import FAULT, FINDING, UNREACHABLE, USAGE, explain
from worker.engine.ports import BrokerUnavailable, LedgerConflict, LedgerUnavailable
from worker.errors import InternalError, OperationError, SettingsError, UnreachableError, UsageError
from worker.ledger.members import ShardsDifferError
from worker.ledger.migrate import SchemaError
from worker.operations.errors import in_words


@pytest.mark.parametrize(
    ("raised", "told", "status"),
    [
        (SettingsError("NODELEDGER_X: is wrong"), "NODELEDGER_X: is wrong", USAGE),
        (UsageError("say which"), "say which", USAGE),
        (OperationError("there is none"), "there is none", FINDING),
        (SchemaError("run this"), "run this", FINDING),
        (ShardsDifferError("16 and 17"), "16 and 17", FINDING),
        (UnreachableError("cannot reach it"), "cannot reach it", UNREACHABLE),
        (asyncpg.UndefinedTableError("no\n such table"), "(no such table): run `nodeledger db upgrade`", FINDING),
        (asyncpg.InsufficientPrivilegeError("no"), "run `nodeledger db check`", FINDING),
        (asyncpg.InvalidPasswordError("no"), "fix its address", UNREACHABLE),
        (asyncpg.QueryCanceledError("slow"), "run it again", UNREACHABLE),
        (asyncpg.AdminShutdownError("bye"), "the database is away", UNREACHABLE),
        (LedgerUnavailable("away"), "the database is away", UNREACHABLE),
        (BrokerUnavailable("away"), "the broker is away", UNREACHABLE),
        (AMQPConnectionError("away"), "the broker is away", UNREACHABLE),
        (TimeoutError(), "TimeoutError", UNREACHABLE),
        (LedgerConflict("conflict"), "a fault of nodeledger itself: conflict (--debug shows where)", FAULT),
        (ZeroDivisionError(), "a fault of nodeledger itself: ZeroDivisionError (--debug shows where)", FAULT),
        (InternalError("broken"), "broken", FAULT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_is_raised_ends_as_one_line_that_says_what_to_do_and_a_status(
    raised: Exception, told: str, status: int
) -> None:
    end = explain(raised)
    assert told in end.text
    assert len(end.text.splitlines()) == 1
    assert end.status == status
    assert end.text == " ".join(str(in_words(raised)).split())
