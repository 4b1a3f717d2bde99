"""A worker whose code fails on commands that say so: the real thing, with one function wrapped.

A project named ``raise``, ``hang`` or ``kill`` makes the decision of its claim do that.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from worker.cli import main
from worker.engine import batch

_decide = vars(batch)["decide"]


def decide(view: Any, command: Any, now: Any) -> Any:
    """Decide, unless told to fail."""
    what = getattr(command, "project", None)
    if what == "raise":
        raise ZeroDivisionError("as told")
    if what == "hang":
        while True:
            pass
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return _decide(view, command, now)


if __name__ == "__main__":
    vars(batch)["decide"] = decide
    sys.argv = ["nodeledger", "worker"]
    main()
