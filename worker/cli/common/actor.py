"""Who is written down as having done something."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Annotated

import typer

Actor = Annotated[str | None, typer.Option(help="Who is written down as having done it; the user and host if unset.")]


def whoami() -> str:
    """The user and the host this runs as and on; behind ``sudo``, who called it."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
