"""What a command says when it cannot go on: one line, and a status a script can act on."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FINDING: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
FAULT: Final = 4
INTERRUPTED: Final = 130

STATUSES: Final = (
    "Exit status: 0 all is well; 1 something was rejected, differs, is missing or was found; 2 wrong usage or "
    "settings; 3 a server cannot be reached or refuses us; 4 a fault of the program (--debug shows where); "
    "130 interrupted."
)


class CommandError(Exception):
    """A command cannot go on. The text is one line that says what to do; ``status`` is the exit status."""

    def __init__(self, text: str, status: int = FINDING) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def explain(error: Exception) -> CommandError:
    """Turn any exception into the line and the status a command ends with."""
    if isinstance(error, CommandError):
        return error
    if hasattr(error, "format_message"):  # typer's own family has no public base class
        return CommandError(f"{error.format_message()} (--help shows the usage)", getattr(error, "exit_code", USAGE))
    if (known := _settings(error) or _database(error) or _broker(error)) is not None:
        return known
    return CommandError(f"a fault of nodeledger itself: {_line(error)} (--debug shows where)", FAULT)


def _settings(error: Exception) -> CommandError | None:
    from worker.settings import SettingsError

    return CommandError(_line(error), USAGE) if isinstance(error, SettingsError) else None


def _database(error: Exception) -> CommandError | None:
    import asyncpg

    from worker.ledger.members import ShardsDifferError
    from worker.ledger.migrate import SchemaError

    missing = (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
    refused = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
    busy = (asyncpg.TransactionRollbackError, asyncpg.QueryCanceledError)
    gone = (
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.InterfaceError,
    )
    meanings = (
        (missing, "the database's schema is missing or old", "run `nodeledger db upgrade`", FINDING),
        ((asyncpg.InsufficientPrivilegeError,), "the role may not do this", "run `nodeledger db check`", FINDING),
        (refused, "the database refuses us", "fix its address", UNREACHABLE),
        (busy, "the database was too busy", "run it again", UNREACHABLE),
        (gone, "the database is away", "try again when it is back", UNREACHABLE),
    )
    if isinstance(error, SchemaError | ShardsDifferError):
        return CommandError(_line(error))
    for kinds, problem, remedy, status in meanings:
        if isinstance(error, kinds):
            return CommandError(f"{problem} ({_line(error)}): {remedy}", status)
    return None


def _broker(error: Exception) -> CommandError | None:
    from aiormq.exceptions import AMQPError

    from worker.engine.ports import BrokerUnavailable

    if isinstance(error, AMQPError | BrokerUnavailable):
        return CommandError(f"the broker is away ({_line(error)}): try again when it is back", UNREACHABLE)
    if isinstance(error, OSError | TimeoutError):
        return CommandError(_line(error), UNREACHABLE)
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
