from __future__ import annotations

import asyncio
import time

from worker.watchdog import watched


async def test_whoever_is_watched_may_end_at_once() -> None:
    began = time.monotonic()
    with watched(asyncio.get_running_loop(), 600):
        await asyncio.sleep(0)
    assert time.monotonic() - began < 10
