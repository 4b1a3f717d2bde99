"""Counts the statements of each batch, by listening between a worker and its database."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from worker.errors import OperationError

_HEAD: Final = struct.Struct("!cI")
_START_HEAD: Final = struct.Struct("!II")
_WANTS_TLS: Final = 80_877_103
_READ_BYTES: Final = 65_536
_FIRST: Final = b"to_json(clock_timestamp())"
_LAST: Final = b"INSERT INTO nodeledger.command"
"""What every batch begins with, and what it ends with; nothing else does either."""


@dataclass(slots=True)
class Conversation:
    """What one client says to the database, as far as it has been heard."""

    counts: list[int]
    _rest: bytes = b""
    _texts: dict[bytes, bytes] = field(default_factory=dict)
    _said: int = 0

    def hear(self, data: bytes) -> None:
        """Take what the client sends after its start-up message, in whatever pieces."""
        data = self._rest + data
        at = 0
        while len(data) - at >= _HEAD.size:
            kind, length = _HEAD.unpack_from(data, at)
            stop = at + 1 + length
            if stop > len(data):
                break
            self._note(kind, data[at + _HEAD.size : stop])
            at = stop
        self._rest = data[at:]

    def _note(self, kind: bytes, payload: bytes) -> None:
        """Follow prepared statements by their names, and a batch from its first to its last."""
        if kind == b"P":
            name, text, _ = payload.split(b"\0", 2)
            self._texts[name] = text
        elif kind == b"B":
            _, name, _ = payload.split(b"\0", 2)
            text = self._texts.get(name, b"")
            self._said = 1 if _FIRST in text else self._said + 1
            if _LAST in text:
                self.counts.append(self._said)


@dataclass(frozen=True, slots=True)
class Wiretap:
    """A stand-in for the database at ``url``; ``counts`` holds the statements of each batch so far."""

    url: str
    counts: list[int]


@asynccontextmanager
async def tapped(url: str) -> AsyncIterator[Wiretap]:
    """Listen on a port of our own, and pass everything on to the database at ``url``.

    Raises:
        OperationError: the address names no host, or wants TLS, through which nothing is heard.
    """
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or 5432
    if not host or "sslmode=require" in parts.query or "sslmode=verify" in parts.query:
        raise OperationError("statements can only be counted on a plain TCP connection to the database")
    counts: list[int] = []
    talks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_relay(reader, writer, host, port, Conversation(counts)))
        talks.add(task)
        task.add_done_callback(talks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    login = parts.netloc.rpartition("@")[0]
    netloc = f"{login}@127.0.0.1:{own}" if login else f"127.0.0.1:{own}"
    try:
        yield Wiretap(urlunsplit(parts._replace(netloc=netloc)), counts)
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, heard: Conversation
) -> None:
    """One connection, from its start to its end. A client that asks for TLS is told to do without."""
    far: asyncio.StreamWriter | None = None
    with suppress(OSError, asyncio.IncompleteReadError):
        try:
            head = await reader.readexactly(_START_HEAD.size)
            while _START_HEAD.unpack(head)[1] == _WANTS_TLS:
                writer.write(b"N")
                head = await reader.readexactly(_START_HEAD.size)
            start = head + await reader.readexactly(_START_HEAD.unpack(head)[0] - _START_HEAD.size)
            answers, far = await asyncio.open_connection(host, port)
            far.write(start)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, far, heard))
                group.create_task(_pass_on(answers, writer, None))
        finally:
            writer.close()
            if far is not None:
                far.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Conversation | None) -> None:
    while data := await reader.read(_READ_BYTES):
        if heard is not None:
            heard.hear(data)
        writer.write(data)
        await writer.drain()
    writer.close()
