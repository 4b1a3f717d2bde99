"""A TCP proxy that cuts a connection to Postgres when it has passed a batch on."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.driver.proxy import Proxy

ENOUGH: Final = 10
_RECORDED: Final = b'"status":"applied"'
"""What is in the outcomes that a batch writes, with which it is committed once all of it is there."""
_ALL: Final = b"S\0\0\0\4"


class CommitCutter(Proxy):
    """Cuts every so many commits: the client never learns whether the server did what it was told."""

    def __init__(self, port: int, *, every: int) -> None:
        super().__init__(port)
        self._every = every
        self._commits = 0
        self._enough = asyncio.Event()

    async def busy(self) -> None:
        """Wait until enough was cut for a test to mean something."""
        async with asyncio.timeout(60):
            await self._enough.wait()

    async def pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """As the proxy does, until a commit was on its way."""
        recorded = False
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
            recorded = recorded or _RECORDED in data
            if (recorded and data.endswith(_ALL)) or b"COMMIT" in data:
                recorded = False
                self._commits += 1
                if self._commits >= ENOUGH * self._every:
                    self._enough.set()
                if self._commits % self._every == 0:
                    target.close()  # not aborted: what the client sent does arrive
                    await target.wait_closed()
                    break
        raise ConnectionResetError
