"""The pages that a supervisor and Prometheus read: ``/livez``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from worker.telemetry.guarding import MAX_CONNECTIONS, only_for, with_room
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from prometheus_client import CollectorRegistry

_log = get_logger(__name__)
_HEAD_SECONDS: Final = 10.0
"""How long a connection may take to send the whole head of a request, the next one after an answer included."""
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class StatusServer:
    """Serves the pages in the worker's own event loop, so that a loop that hangs shows.

    ``problems`` tells what keeps the worker from being ready, one sentence
    each; empty when it is. More routes may be added to ``app`` before
    :meth:`start`. It is answered to ``names`` besides its addresses (see
    :func:`worker.telemetry.guarding.only_for`), on so many ``connections`` at
    once, each of which has ``head_seconds`` for the head of a request.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        problems: Callable[[], Sequence[str]],
        *,
        names: Collection[str] = (),
        connections: int = MAX_CONNECTIONS,
        head_seconds: float = _HEAD_SECONDS,
    ) -> None:
        self.app: Final = web.Application(middlewares=[only_for(names)])
        self.app.on_response_prepare.append(_nameless)
        self.app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._registry = registry
        self._problems = problems
        self._connections = connections
        self._head_seconds = head_seconds
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int, port_file: Path | None = None) -> int:
        """Listen, and return the port in use, which is also written to ``port_file``; 0 takes any free one.

        Raises:
            OSError: the address cannot be listened on, or the file not written.
        """
        runner = web.AppRunner(
            self.app,
            access_log=None,
            shutdown_timeout=1.0,
            handle_signals=False,
            keepalive_timeout=self._head_seconds,  # runs from the connection's start, and from each answer
        )
        await runner.setup()
        self._runner = runner
        try:
            accept = with_room(runner.server, self._connections)
            self._listener = await asyncio.get_running_loop().create_server(accept, host, port)
            chosen = int(self._listener.sockets[0].getsockname()[1])
            if port_file is not None:
                _write_whole(port_file, f"{chosen}\n")
        except OSError:
            await self.close()
            raise
        _log.info("serving health and metrics", host=host, port=chosen)
        return chosen

    async def close(self) -> None:
        """Stop listening and end open requests."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True}, headers=_HEADERS)

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = list(self._problems())
        document = {"ready": not problems, "problems": problems}
        return web.json_response(document, status=503 if problems else 200, headers=_HEADERS)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={**_HEADERS, "Content-Type": content_type})


async def _nameless(_request: web.Request, response: web.StreamResponse) -> None:
    """Leave out what the server is called and its version: nobody needs it who means well."""
    response.headers.pop("Server", None)


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody reads half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
