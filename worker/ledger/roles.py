"""The roles beside the owner: what they are called, how patient they are, what they may do.

The owner makes and changes the schema. The worker writes rows, cannot change
the schema, and cannot take back what the ledger says. The reader sees views.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from worker.ledger.statements import Connection, statement

WORKER: Final = "nodeledger_worker"
READER: Final = "nodeledger_reader"

# A paused worker must not hold a node's row against its successor: its
# transaction is ended before the successor's patience with the lock is.
WORKER_SETTINGS: Final = {
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    "jit": "off",
}

_MAX_RACES: Final = 20


async def missing_roles(connection: Connection) -> list[str]:
    """Those of the roles that the server does not know."""
    known = await connection.fetch(statement("roles"), [WORKER, READER])
    return sorted({WORKER, READER} - {row["role"] for row in known})


async def create_roles(connection: Connection) -> list[str]:
    """Create the roles that are missing, without passwords; returns the statements that were not permitted."""
    refused = []
    for role in await missing_roles(connection):
        command = f"CREATE ROLE {role} LOGIN"
        try:
            async with connection.transaction():
                await connection.execute(command)
        except asyncpg.InsufficientPrivilegeError:
            refused.append(command)
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            continue  # roles belong to the whole server: another database's upgrade was faster
    return refused


async def setting_differences(connection: Connection) -> list[str]:
    """The statements that would give the worker's role its timeouts."""
    rows = await connection.fetch(statement("roles"), [WORKER])
    present = dict(setting.split("=", 1) for row in rows for setting in row["settings"])
    return [
        f"ALTER ROLE {WORKER} SET {name} = '{value}'"
        for name, value in WORKER_SETTINGS.items()
        if present.get(name) != value
    ]


async def apply_settings(connection: Connection) -> bool:
    """Give the worker's role its timeouts, as far as permitted; returns whether anything changed.

    They hold for connections made from then on. Every role may set its own, so
    where the owner was not permitted to, the worker does it when it connects.
    """
    changes = [await _alter(connection, command) for command in await setting_differences(connection)]
    return any(changes)


async def grant_differences(connection: Connection) -> list[str]:
    """The statements that would give the roles exactly their privileges."""
    return [row["statement"] for row in await connection.fetch(statement("grant_differences"))]


async def _alter(connection: Connection, command: str) -> bool:
    for _ in range(_MAX_RACES):
        try:
            async with connection.transaction():
                await connection.execute(command)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError):
            return False
        except asyncpg.InternalServerError:
            continue  # another session altered the same role at the same moment
        return True
    return False
