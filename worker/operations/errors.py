"""What any exception means for the person who asked: the one place where drivers' errors become the product's own."""

from __future__ import annotations

from worker.errors import InternalError, NodeledgerError, OperationError, SettingsError, UnreachableError, UsageError

_TOLD = (SettingsError, UsageError, OperationError, UnreachableError, InternalError)
"""Those whose text is for whoever asked; any other of ours is as unforeseen here as a stranger's."""


def in_words(error: Exception) -> NodeledgerError:
    """The product's own exception for any: what is wrong, and what to do, in one line.

    What nobody foresaw is an :class:`~worker.errors.InternalError`.
    """
    if isinstance(error, _TOLD):
        return error
    known = _database(error) or _broker(error)
    return known or InternalError(f"a fault of nodeledger itself: {line(error)} (--debug shows where)")


def line(error: BaseException) -> str:
    """An exception's text in one line; the name of its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _database(error: Exception) -> NodeledgerError | None:
    import asyncpg

    from worker.engine.ports import LedgerUnavailable

    missing = (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
    forbidden = (asyncpg.InsufficientPrivilegeError,)
    refused = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
    busy = (asyncpg.TransactionRollbackError, asyncpg.QueryCanceledError)
    gone = (
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.InterfaceError,
        LedgerUnavailable,
    )
    meanings = (
        (missing, "the database's schema is missing or old", "run `nodeledger db upgrade`", OperationError),
        (forbidden, "the role may not do this", "run `nodeledger db check`", OperationError),
        (refused, "the database refuses us", "fix its address", UnreachableError),
        (busy, "the database was too busy", "run it again", UnreachableError),
        (gone, "the database is away", "try again when it is back", UnreachableError),
    )
    for kinds, problem, remedy, meaning in meanings:
        if isinstance(error, kinds):
            return meaning(f"{problem} ({line(error)}): {remedy}")
    return None


def _broker(error: Exception) -> NodeledgerError | None:
    from aiormq.exceptions import AMQPError

    from schemas.errors import BrokerAwayError, ClientError
    from worker.engine.ports import BrokerUnavailable

    if isinstance(error, BrokerAwayError):
        return UnreachableError(f"{line(error)}; NODELEDGER_AMQP_URL says where it is")
    if isinstance(error, ClientError):
        return OperationError(line(error))

    if isinstance(error, AMQPError | BrokerUnavailable):
        return UnreachableError(f"the broker is away ({line(error)}): try again when it is back")
    if isinstance(error, OSError | TimeoutError):
        return UnreachableError(line(error))
    return None
