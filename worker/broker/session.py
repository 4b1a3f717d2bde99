"""One connection to the broker, kept alive: built whole, lost whole, built again.

aio-pika's robust connection restores channels behind the back of those who
use them, at a fixed interval for all clients alike. Here a connection that is
lost takes its channels and everything unacknowledged with it; the next one
has a higher generation and starts from nothing, after a jittered pause.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiormq.tools import censor_url
from yarl import URL

from schemas.backoff import Backoff
from schemas.stopping import ended
from worker.broker.link import CLOSE_SECONDS, Link, TappedConnection, asked
from worker.engine.ports import BrokerUnavailable
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_log = get_logger(__name__)

BACKOFF: Final = Backoff(0.1, 10.0)
"""A broker that starts again is not met by all workers at once, and waits ten seconds at most for each."""
_STEADY_SECONDS: Final = 10.0
_END_SECONDS: Final = 3 * CLOSE_SECONDS
"""Closing the channels that are being opened, then the connection, and something for a slow machine."""


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Where the broker is and how to talk to it.

    ``urls`` are tried in turn, so that a cluster's other nodes take over;
    ``name`` is what operators see in the broker's list of connections.
    """

    urls: tuple[str, ...]
    name: str = "nodeledger"
    tls: ssl.SSLContext | None = None
    heartbeat_seconds: int = 20
    connect_seconds: float = 10.0


def tls_context(
    cafile: Path | None = None, certfile: Path | None = None, keyfile: Path | None = None
) -> ssl.SSLContext:
    """A context that verifies the broker, by ``cafile`` or the system's authorities, and can show a certificate.

    Raises:
        OSError: a file cannot be read or is no certificate or key.
    """
    context = ssl.create_default_context(cafile=cafile)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certfile is not None:
        context.load_cert_chain(certfile, keyfile)
    return context


class Session:
    """The supervisor of one connection.

    Args:
        options: where the broker is.
        role: what this connection is for; part of its name at the broker.
        on_ready: opens the channels on each new link; a link counts as ready when it returns.
        on_lost: told when a link is gone, before the next is tried.
    """

    def __init__(
        self,
        options: BrokerOptions,
        role: str,
        *,
        on_ready: Callable[[Link], Awaitable[None]],
        on_lost: Callable[[Link], None],
    ) -> None:
        self.link: Link | None = None
        self.generation = 0
        self.last_error: str | None = None
        self.failures = 0
        self._options = options
        self._role = role
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._ready = asyncio.Event()
        self._closing = False
        self._supervisor: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin connecting, and go on forever."""
        self._supervisor = asyncio.create_task(self._supervise(), name=f"broker-{self._role}")

    async def ready(self, timeout: float) -> Link:  # noqa: ASYNC109 - the caller's budget, with our own error
        """The live link, as soon as there is one.

        Raises:
            BrokerUnavailable: there is none within ``timeout`` seconds.
        """
        if self.link is not None and self.link.alive:
            return self.link
        if self.link is not None:
            self._ready.clear()  # it is dead, and the supervisor has yet to notice
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        if self.link is None:
            raise BrokerUnavailable(self.last_error or f"no connection to the broker within {timeout:g} s")
        return self.link

    async def close(self) -> None:
        """Stop supervising and close the connection, within seconds."""
        self._closing = True
        if self._supervisor is not None:
            await ended([self._supervisor], _END_SECONDS)
            self._supervisor = None

    async def _supervise(self) -> None:
        attempt = 0
        while not self._closing:  # also where its cancellation got lost
            url = URL(self._options.urls[attempt % len(self._options.urls)])
            started = asyncio.get_running_loop().time()
            try:
                await self._live(url)
            except Exception as error:  # noqa: BLE001 - the library's errors have no common base, and all mean "again"
                self.failures += 1
                self.last_error = f"{censor_url(url)}: {str(error) or type(error).__name__}"
                _log.warning("no connection to the broker", role=self._role, error=self.last_error)
            if asyncio.get_running_loop().time() - started > _STEADY_SECONDS:
                attempt = 0
            attempt += 1
            await asyncio.sleep(BACKOFF.seconds(attempt))

    async def _live(self, url: URL) -> None:
        connection = TappedConnection(
            url.update_query(heartbeat=str(self._options.heartbeat_seconds)),
            ssl_context=self._options.tls,
            client_properties={"connection_name": f"{self._options.name} {self._role}"},
        )
        try:
            await asked(connection.connect(), self._options.connect_seconds)
            self.generation += 1
            link = Link(connection, self.generation)
        except BaseException:
            await connection.end()
            raise
        try:
            await self._set_up(link)
            await link.tap.lost.wait()
            raise BrokerUnavailable(link.failure)
        finally:
            self._ready.clear()
            self.link = None
            self._on_lost(link)
            await link.close()

    async def _set_up(self, link: Link) -> None:
        """Open the channels; a link that dies meanwhile ends this at once instead of at the deadline."""
        opening = asyncio.ensure_future(self._on_ready(link))
        dying = asyncio.ensure_future(link.tap.lost.wait())
        try:
            done, _ = await asyncio.wait(
                (opening, dying), timeout=self._options.connect_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if opening not in done:
                raise BrokerUnavailable(link.failure if done else "the broker does not open our channels")
            await asked(opening)
        finally:
            await ended((opening, dying), CLOSE_SECONDS)
        self.link = link
        self.last_error = None
        self._ready.set()
        _log.info("connected to the broker", role=self._role, generation=link.generation)
