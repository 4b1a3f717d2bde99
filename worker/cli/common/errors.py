"""How a command that cannot go on ends: one line, and a status a script can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker.errors import InternalError, SettingsError, UnreachableError, UsageError

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


@dataclass(frozen=True, slots=True)
class End:
    """How a command ends: the line on standard error, and the exit status."""

    text: str
    status: int


def explain(error: Exception) -> End:
    """The line and the status that a command ends with, whatever was raised."""
    if hasattr(error, "format_message"):  # typer's own family has no public base class
        return End(f"{error.format_message()} (--help shows the usage)", getattr(error, "exit_code", USAGE))
    from worker.operations.errors import in_words, line

    meant = in_words(error)
    return End(line(meant), _status(meant))


def _status(error: Exception) -> int:

    if isinstance(error, SettingsError | UsageError):
        return USAGE
    if isinstance(error, UnreachableError):
        return UNREACHABLE
    return FAULT if isinstance(error, InternalError) else FINDING
