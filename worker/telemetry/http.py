"""The pages that a supervisor and Prometheus read: ``/livez``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import CollectorRegistry

_log = get_logger(__name__)
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class StatusServer:
    """Serves the pages in the worker's own event loop, so that a loop that hangs shows.

    ``problems`` tells what keeps the worker from being ready, one sentence
    each; empty when it is. More routes may be added to ``app`` before
    :meth:`start`.
    """

    def __init__(self, registry: CollectorRegistry, problems: Callable[[], Sequence[str]]) -> None:
        self.app: Final = web.Application()
        self.app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._registry = registry
        self._problems = problems
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, port_file: Path | None = None) -> int:
        """Listen, and return the port in use, which is also written to ``port_file``; 0 takes any free one.

        Raises:
            OSError: the address cannot be listened on, or the file not written.
        """
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, host, port).start()
            chosen = int(runner.addresses[0][1])
            if port_file is not None:
                _write_whole(port_file, f"{chosen}\n")
        except OSError:
            await self.close()
            raise
        _log.info("serving health and metrics", host=host, port=chosen)
        return chosen

    async def close(self) -> None:
        """Stop listening and end open requests."""
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


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody reads half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
