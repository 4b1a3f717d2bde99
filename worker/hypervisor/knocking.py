"""Whether anything listens where a hypervisor's address points: cheap, without a thread and without libvirt."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

from worker.hypervisor.addresses import PORTS

_SECONDS: Final = 2.0
"""A host that is up takes a connection within milliseconds, across an ocean within a few hundred."""


async def answers(uri: str) -> bool:
    """Whether a connection is taken there; yes of an address that names no port to knock at."""
    address = urlsplit(uri)
    port = address.port or PORTS.get(address.scheme.partition("+")[2])
    if port is None or not address.hostname:
        return True
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(address.hostname, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
