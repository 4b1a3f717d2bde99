"""A small TCP proxy whose connections can be cut, or left hanging."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Self


class Proxy:
    """Forwards one local port to another, until told otherwise."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

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

    def cut(self, random: Random) -> None:
        """Cut one connection, both ends at once."""
        if self._open:
            self.cuts += 1
            for writer in random.choice(list(self._open.values())):
                writer.transport.abort()

    def cut_all(self) -> None:
        """Cut whatever is open."""
        for writers in self._open.values():
            for writer in writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open[task] = (writer, back)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.pass_on(reader, back))
                both.create_task(_pump(there, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            writer.transport.abort()
            back.transport.abort()

    async def pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Forward what the client sends; raises ConnectionResetError when it has nothing more to send."""
        await _pump(source, target)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()
    raise ConnectionResetError
