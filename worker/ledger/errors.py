"""Which database errors are the world's doing, and which a command's own.

A batch that met the world's doing is run again once the world is better; one
that met a command's own error is split until that command stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = get_logger(__name__)

_T = TypeVar("_T")

_TRANSIENT_CLASSES: Final = frozenset({
    "08",  # connection exceptions: lost, refused, in doubt
    "25",  # invalid transaction state: read-only after a fail-over, idle in transaction for too long
    "28",  # authorization refused: a password is being changed
    "3D",  # the database is not there
    "3F",  # the schema is not there yet
    "40",  # serialization failure, deadlock
    "53",  # out of connections, memory or disk
    "55",  # lock not available, object in use
    "57",  # cancelled, shut down, starting up, recovering
    "58",  # an I/O error of the server's system
})  # fmt: skip
_TRANSIENT_CODES: Final = frozenset({
    "26000",  # a prepared statement was left behind at another server connection
    "42501",  # a privilege is missing
    "42703",  # a column is missing: the schema is older than this worker
    "42883",  # a function is missing, likewise
    "42P01",  # a table is missing, likewise
    "42P05",  # a prepared statement of that name is there already
})  # fmt: skip
ENTANGLED: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""What Postgres ends a transaction with that others were in the way of: run again, it finds them gone."""

_ATTEMPTS: Final = 5
"""Of those that wait for each other all but one go on, so that a second attempt is rare; a deadlock takes a second."""

_CONFLICT_CONSTRAINTS: Final = frozenset({"node_name_key", "instance_pkey", "command_pkey", "a_host_is_one_node"})


def is_transient(error: BaseException) -> bool:
    """Whether the same work can succeed later: the fault is in the database, the network or the installation.

    That includes a missing table or privilege: no command is to blame for it,
    so none may be put away as poison. It also includes a cancelled statement,
    since only timeouts and administrators cancel here.
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_CODES
    if isinstance(error, asyncpg.InterfaceError):
        return "connection" in str(error) and "closed" in str(error)
    return isinstance(error, (OSError, TimeoutError, asyncpg.InternalClientError))


def is_conflict(error: BaseException) -> bool:
    """Whether another worker was faster: what was read is there no more, or both made the same row. Run again.

    So is a deadlock: Postgres ended this transaction and let the others go on.
    """
    if isinstance(error, asyncpg.UniqueViolationError):
        return error.constraint_name in _CONFLICT_CONSTRAINTS
    return isinstance(error, ENTANGLED)


async def repeated(work: Callable[[], Awaitable[_T]]) -> _T:
    """Do some work on the database, and again where Postgres ended it for the sake of another's; nothing of it is left.

    Raises:
        asyncpg.PostgresError: it ended it each time; whatever else the work raises.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return await work()
        except ENTANGLED as error:
            _log.info("what others did at the same moment ended a transaction; it is run again", error=repr(error))
    return await work()
