"""A TCP proxy that cuts a connection to Postgres when it has passed a COMMIT on."""

from __future__ import annotations

import asyncio
from typing import Final, Self

ENOUGH: Final = 10


class CommitCutter:
    """Cuts every so many commits: the client never learns whether the server did what it was told."""

    def __init__(self, port: int, *, every: int) -> None:
        self.port = 0
        self._target = port
        self._every = every
        self._commits = 0
        self._enough = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def busy(self) -> None:
        """Wait until enough was cut for a test to mean something."""
        async with asyncio.timeout(60):
            await self._enough.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._open.add(task)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, back))
                both.create_task(self._pass_back(there, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()
            back.close()  # not aborted: what the client sent does arrive

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
            if b"COMMIT" in data:
                self._commits += 1
                if self._commits >= ENOUGH * self._every:
                    self._enough.set()
                if self._commits % self._every == 0:
                    break
        raise ConnectionResetError

    async def _pass_back(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
        raise ConnectionResetError
