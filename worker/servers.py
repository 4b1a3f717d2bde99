"""Where the servers are and how they prove themselves, from the settings, and connections to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from worker.errors import SettingsError, UnreachableError

if TYPE_CHECKING:
    from ssl import SSLContext

    import asyncpg

    from schemas.client import Client
    from worker.broker.link import Link
    from worker.broker.session import BrokerOptions, Session
    from worker.settings import Settings

_CONNECT_SECONDS: Final = 10.0


@asynccontextmanager
async def reading() -> AsyncIterator[asyncpg.Pool]:
    """A small pool for reading the ledger: the reader's address where it is set, the worker's otherwise.

    Raises:
        SettingsError: no address is set.
        UnreachableError: the database does not let us in.
    """
    settings = _settings()
    names = ("database_reader_url", "database_url") if settings.database_reader_url else ("database_url",)
    async with _pool(settings, *names) as pool:
        yield pool


@asynccontextmanager
async def writing() -> AsyncIterator[asyncpg.Pool]:
    """A small pool in the worker's role.

    Raises:
        SettingsError: its address is not set.
        UnreachableError: the database does not let us in.
    """
    async with _pool(_settings(), "database_url") as pool:
        yield pool


@asynccontextmanager
async def owning() -> AsyncIterator[asyncpg.Connection]:
    """A connection in the role that owns the schema.

    Raises:
        SettingsError: its address is not set.
        UnreachableError: the database does not let us in.
    """
    import asyncpg

    settings = _settings()
    try:
        connection = await asyncpg.connect(
            settings.required("database_owner_url"), timeout=_CONNECT_SECONDS, ssl=database_tls(settings)
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise unreachable("database", "NODELEDGER_DATABASE_OWNER_URL", error) from error
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def broker() -> AsyncIterator[Link]:
    """A connection to the broker, for those who rather fail than wait for a broker that is away.

    Raises:
        SettingsError: its address is not set.
        UnreachableError: no node of it lets us in.
    """
    from worker.broker.session import Session

    async def no_channels(_link: Link) -> None:
        """Whoever uses the link opens what it needs."""

    options = broker_options(_settings())
    session = Session(options, "command", on_ready=no_channels, on_lost=lambda _link: None)
    session.start()
    try:
        yield await _first_link(session, attempts=len(options.urls))
    finally:
        await session.close()


@asynccontextmanager
async def client(shards: int) -> AsyncIterator[Client]:
    """A client for sending commands, for those who rather fail at first than wait for a broker that is away.

    Raises:
        SettingsError: its address is not set.
        BrokerAwayError: no node of it lets us in.
    """
    from schemas.client import Client

    options = broker_options(_settings())
    async with Client(options.urls, shards=shards, tls=options.tls, attempts=1, name="nodeledger command") as made:
        yield made


def broker_options(settings: Settings) -> BrokerOptions:
    """Where the broker is, from the settings.

    Raises:
        SettingsError: its address is not set; a certificate cannot be read, or would not be used.
    """
    from worker.broker.session import BrokerOptions, tls_context
    from worker.setting_types import broker_addresses

    urls = broker_addresses(settings.required("amqp_url"))
    encrypted = urlsplit(urls[0]).scheme == "amqps"
    if not encrypted and (settings.amqp_cafile or settings.amqp_certfile):
        raise SettingsError("NODELEDGER_AMQP_URL is not encrypted though certificates are set: use amqps://")
    try:
        tls = tls_context(settings.amqp_cafile, settings.amqp_certfile, settings.amqp_keyfile)
    except OSError as error:
        raise SettingsError(f"cannot use the certificates in NODELEDGER_AMQP_…FILE: {error}") from None
    return BrokerOptions(
        urls=urls,
        tls=tls if encrypted else None,
        heartbeat_seconds=settings.heartbeat_seconds,
        connect_seconds=_CONNECT_SECONDS,
    )


def database_tls(settings: Settings) -> SSLContext | None:
    """How the database proves itself, from the settings; ``None`` leaves it to the address.

    Raises:
        SettingsError: a certificate cannot be read.
    """
    if settings.database_cafile is None and settings.database_certfile is None:
        return None
    from worker.broker.session import tls_context

    try:
        return tls_context(settings.database_cafile, settings.database_certfile, settings.database_keyfile)
    except OSError as error:
        raise SettingsError(f"cannot use the certificates in NODELEDGER_DATABASE_…FILE: {error}") from None


def unreachable(server: str, name: str, error: BaseException | str) -> UnreachableError:
    """The error for a server that does not let us in; its address, which may hold a password, is not repeated."""
    why = " ".join(str(error).split()) or type(error).__name__
    return UnreachableError(f"cannot reach the {server}, check that it runs, and {name} ({why})")


def _settings() -> Settings:
    """The settings; their library is loaded only by commands that need them."""
    from worker.settings import load_settings

    return load_settings()


async def _first_link(session: Session, attempts: int) -> Link:
    """The link of a session's first attempts, one for each node of the broker."""
    from worker.engine.ports import BrokerUnavailable

    name = "NODELEDGER_AMQP_URL"
    waiting = asyncio.ensure_future(session.ready(attempts * (_CONNECT_SECONDS + 1)))
    try:
        while not waiting.done():
            await asyncio.wait((waiting,), timeout=0.02)
            if session.last_error is not None and session.failures >= attempts:
                raise unreachable("broker", name, session.last_error)
        return waiting.result()
    except BrokerUnavailable as error:
        raise unreachable("broker", name, error) from error
    finally:
        waiting.cancel()


@asynccontextmanager
async def _pool(settings: Settings, *names: str) -> AsyncIterator[asyncpg.Pool]:
    import asyncpg

    from worker.ledger.pool import connect_pool
    from worker.settings import variable

    url = settings.required(*names)
    try:
        pool = await connect_pool(
            url,
            max_size=2,
            connect_timeout=_CONNECT_SECONDS,
            command_timeout=max(settings.database_command_seconds, 600.0),
            statement_cache=settings.database_statement_cache,
            ssl=database_tls(settings),
            application_name="nodeledger-cli",
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise unreachable("database", " or ".join(map(variable, names)), error) from error
    try:
        yield pool
    finally:
        await pool.close()
