"""A guard against code that never returns: it would hold its worker, and the worker its shards, forever."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

STATUS: Final = 75
"""Exit status of a process that was ended because it hung: start it again."""

_TICKS: Final = 10


@contextmanager
def watched(loop: asyncio.AbstractEventLoop, seconds: float) -> Iterator[None]:
    """End the process with the stacks of its threads on standard error once the loop has hung for ``seconds``.

    The broker then gives what it worked on to another worker, which knows that
    it was tried. Time counts in ticks of the watching thread: a process that
    was paused and goes on has not hung.
    """
    beat = threading.Event()
    over = threading.Event()

    def answer() -> None:
        beat.set()

    def watch() -> None:
        silent = 0
        while True:
            loop.call_soon_threadsafe(answer)
            if over.wait(seconds / _TICKS):
                return
            silent = 0 if beat.is_set() else silent + 1
            beat.clear()
            if silent >= _TICKS:
                sys.stderr.write(f"the event loop has hung for {seconds:g} s; ending the process\n")
                faulthandler.dump_traceback()
                os._exit(STATUS)

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
