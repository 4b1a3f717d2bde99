"""Waiting for the outcomes of what was sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from worker.errors import UnreachableError

if TYPE_CHECKING:
    from worker.operations.sending import Awaited


async def await_outcomes(awaited: Awaited, lost: asyncio.Event, seconds: float) -> None:
    """Wait until every outcome is there, or so many seconds are over.

    Raises:
        OperationError: the connection was lost before all came.
    """
    if not awaited.open:
        return
    waits = [asyncio.ensure_future(event.wait()) for event in (awaited.done, lost)]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if awaited.open and lost.is_set():
        text = f"the broker went away before {len(awaited.open)} outcomes came: the database keeps them"
        raise UnreachableError(f"{text}, and sending the same ids again gives them again")
