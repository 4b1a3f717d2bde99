"""Files and standard input: whole, or line by line as they come without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from threading import Semaphore, Thread
from typing import Final

from worker.errors import OperationError, UsageError

_CHUNK_BYTES: Final = 256 * 1024
_CHUNKS_AHEAD: Final = 4
_LONGEST_LINE_BYTES: Final = 16 * 1024 * 1024


def read_input(name: str) -> bytes:
    """All of a file; ``-`` is standard input.

    Raises:
        UsageError: there is no such file, or it may not be read.
    """
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise _unreadable(name, error) from None


def open_input(name: str) -> int:
    """A file descriptor to read from; ``-`` is standard input.

    Raises:
        UsageError: there is no such file, or it may not be read.
    """
    if name == "-":
        return 0
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: OSError) -> UsageError:
    return UsageError(f"cannot read {name}: {error.strerror}")


async def batches(descriptor: int) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Numbered lines, grouped as they arrive: many from a file, each by itself from a slow pipe.

    Blank lines are left out. A daemon thread reads the descriptor itself and
    not a buffered stream, so that an interrupt waits neither for a silent pipe
    nor for that stream's lock.

    Raises:
        OperationError: the input cannot be read.
        UsageError: it has no end of line for too long.
    """
    chunks = _chunks(descriptor)
    number, rest = 0, b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE_BYTES:
            raise UsageError(f"line {number + len(lines) + 1} has no end: expected one JSON object a line")
        if found := [(at, line) for at, line in enumerate(lines, start=number + 1) if line.strip()]:
            yield found
        number += len(lines)
    if rest.strip():
        yield [(number + 1, rest)]


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = Semaphore(_CHUNKS_AHEAD)

    def read() -> None:
        last: bytes | OSError = b""
        try:
            while room.acquire() and (chunk := os.read(descriptor, _CHUNK_BYTES)):
                loop.call_soon_threadsafe(arrived.put_nowait, chunk)
        except OSError as error:
            last = error
        with suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(arrived.put_nowait, last)

    Thread(target=read, name="nodeledger-input", daemon=True).start()
    while chunk := await arrived.get():
        if isinstance(chunk, OSError):
            raise OperationError(f"cannot read the input: {chunk.strerror}")
        room.release()
        yield chunk
