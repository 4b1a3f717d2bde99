"""Connections to Postgres that also work through PgBouncer in transaction mode."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from worker.ledger.roles import apply_settings, settings_in_force

if TYPE_CHECKING:
    from ssl import SSLContext


_SERVERS: Final = re.compile(r"([a-z]+://(?:[^/?#]*@)?)([^/?#@]*)(.*)")


class LeanConnection(asyncpg.Connection):
    """A connection that goes back to its pool without a query.

    Nothing here keeps state in a session (no ``SET``, no session locks, no
    ``LISTEN``), so there is nothing to reset, and the round trip is saved.
    """

    __slots__ = ()

    def get_reset_query(self) -> str:
        """Nothing to run."""
        return ""


class Servers:
    """The servers that an address names, of which one is the primary now.

    asyncpg goes through them in turn too, but a machine that is silent, as one without
    power is, takes up all the time there is, and one that is full ends the
    search. Here each has its share of the time, whatever is wrong with it the
    next is asked, and the one that answered last is asked first.
    """

    def __init__(self, url: str) -> None:
        self._urls = single_addresses(url)

    async def connect(
        self,
        *_: Any,
        timeout: float,  # noqa: ASYNC109 - as asyncpg calls it
        **options: Any,
    ) -> asyncpg.Connection:
        """Connect to the first that lets us in; ``timeout`` in seconds is for all of them together.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InternalClientError: none does; what the last one said.
        """
        urls = self._urls
        for url in urls:
            try:
                connection: asyncpg.Connection = await asyncpg.connect(url, timeout=timeout / len(urls), **options)
            except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError):
                if url == urls[-1]:
                    raise
                continue
            self._urls = [url, *(other for other in urls if other != url)]
            break
        return connection


def single_addresses(url: str) -> list[str]:
    """An address like ``postgresql://u:p@h1:5432,h2:5432/db``, once for each of its servers."""
    found = _SERVERS.fullmatch(url)
    if found is None:
        return [url]
    start, servers, end = found.groups()
    return [f"{start}{server}{end}" for server in servers.split(",")]


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
    its companions decide. It may name several servers (see :class:`Servers`),
    and should then end in ``?target_session_attrs=read-write``. Only ``application_name`` travels as a start-up
    parameter; every other setting belongs to the role (see
    :mod:`worker.ledger.roles`).

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached or refuses.
    """
    connect: Any = Servers(url).connect  # asyncpg's type for it knows nothing of a coroutine function
    pool: asyncpg.Pool = await asyncpg.create_pool(
        url,
        connect=connect,
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
    await _put_in_force(pool)
    return pool


async def _put_in_force(pool: asyncpg.Pool) -> None:
    """Give the role its settings where it lacks them; sessions that began without are not used again."""
    async with pool.acquire() as connection:
        if await settings_in_force(connection):
            return
        await apply_settings(connection)
    await pool.expire_connections()
