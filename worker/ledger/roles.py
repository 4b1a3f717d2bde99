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
_PATIENCE: Final = {
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
}
# All the worker does is look up rows by their keys. Plans that are prepared
# while the tables are empty would read them whole, and be kept as they grow;
# plans made anew for each batch would be the same, and cost more than their use.
_PLANS_BY_KEY: Final = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
WORKER_SETTINGS: Final = _PATIENCE | _PLANS_BY_KEY

_MAX_CONFLICTS: Final = 20


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
    """The statements that would give the worker's role its settings."""
    rows = await connection.fetch(statement("roles"), [WORKER])
    present = dict(setting.split("=", 1) for row in rows for setting in row["settings"])
    return [
        f"ALTER ROLE {WORKER} SET {name} = '{value}'"
        for name, value in WORKER_SETTINGS.items()
        if present.get(name) != value
    ]


async def apply_settings(connection: Connection) -> None:
    """Give the worker's role its settings, as far as permitted.

    They hold for connections made from then on. Every role may set its own, so
    where the owner was not permitted to, the worker does it when it connects.
    """
    for command in await setting_differences(connection):
        await _alter(connection, command)


async def settings_in_force(connection: Connection) -> bool:
    """Whether this connection has the worker's settings, or is not the worker's."""
    settled: bool = await connection.fetchval(
        statement("settings_in_force"), list(WORKER_SETTINGS), list(WORKER_SETTINGS.values()), WORKER
    )
    return settled


async def grant_differences(connection: Connection) -> list[str]:
    """The statements that would give the roles exactly their privileges."""
    return [row["statement"] for row in await connection.fetch(statement("grant_differences"))]


async def excess(connection: Connection) -> list[str]:
    """What the roles may do beside their privileges and must not, each with what a superuser runs against it."""
    found = [
        f"a role may do too much: run `{row[0]}`"
        for row in await connection.fetch(statement("role_excess"), [WORKER, READER], READER)
    ]
    if await connection.fetchval(statement("open_functions"), READER):
        found.append(
            "every role may write large objects and logical messages, and take advisory locks:"
            " run deploy/database-roles as a superuser"
        )
    return found


async def _alter(connection: Connection, command: str) -> None:
    for _ in range(_MAX_CONFLICTS):
        try:
            async with connection.transaction():
                await connection.execute(command)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError):
            return
        except (asyncpg.InternalServerError, asyncpg.UniqueViolationError):
            continue  # another session altered the same role at the same moment
        return
