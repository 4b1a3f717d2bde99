"""Connections to Postgres that also work through PgBouncer in transaction mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from worker.ledger.roles import apply_settings, settings_in_force

if TYPE_CHECKING:
    from ssl import SSLContext


class LeanConnection(asyncpg.Connection):
    """A connection that goes back to its pool without a query.

    Nothing here keeps state in a session (no ``SET``, no session locks, no
    ``LISTEN``), so there is nothing to reset, and the round trip is saved.
    """

    __slots__ = ()

    def get_reset_query(self) -> str:
        """Nothing to run."""
        return ""


async def connect_pool(
    url: str,
    *,
    min_size: int = 1,
    max_size: int = 8,
    connect_timeout: float = 10.0,
    command_timeout: float = 40.0,
    statement_cache: bool = True,
    ssl: SSLContext | None = None,
    application_name: str = "nodeledger",
) -> asyncpg.Pool:
    """Open a pool, prove that it works, and see to it that the worker's role has its settings.

    Timeouts are in seconds; ``command_timeout`` should exceed the role's
    ``statement_timeout``, which then decides. ``statement_cache`` must be false
    behind a PgBouncer that knows no prepared statements (before 1.21, or with
    ``max_prepared_statements = 0``). Without ``ssl`` the URL's ``sslmode`` and
    its companions decide. Only ``application_name`` travels as a start-up
    parameter; every other setting belongs to the role (see
    :mod:`worker.ledger.roles`).

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached or refuses.
    """
    pool = await asyncpg.create_pool(
        url,
        min_size=min_size,
        max_size=max_size,
        timeout=connect_timeout,
        command_timeout=command_timeout,
        statement_cache_size=1024 if statement_cache else 0,
        max_cacheable_statement_size=64 * 1024,
        max_inactive_connection_lifetime=300.0,
        connection_class=LeanConnection,
        server_settings={"application_name": application_name},
        ssl=ssl,
    )
    async with pool.acquire() as connection:
        settled = await settings_in_force(connection)
        if not settled:
            await apply_settings(connection)
    if not settled:
        await pool.expire_connections()
    return pool
