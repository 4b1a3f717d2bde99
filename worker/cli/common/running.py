"""Running a command's work on an event loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one command's work to its end. What libraries log is left out: what matters comes back as an error."""
    import uvloop

    from worker.telemetry.logs import silenced

    with silenced():
        return uvloop.run(work)
