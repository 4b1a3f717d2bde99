"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource
from typing import Final

_ENOUGH: Final = 65_536
"""More than a worker could use; as many as the system lets it have take no memory until they are used."""


def descriptors() -> int:
    """Have as many as may be had, up to enough; answers how many.

    The limit that a process starts with, often 1024, is for programs that use ``select``, which
    nothing here does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft
