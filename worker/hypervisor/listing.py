"""Reading all domains of a host again and again: what has not changed is not parsed twice."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from worker.hypervisor.domains import Described, read_domain

if TYPE_CHECKING:
    from worker.hypervisor.connection import Connection


class DomainLister:
    """The domains of one host; used by one thread at a time."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], tuple[bytes, Described]] = {}

    def read(self, connection: Connection) -> list[Described]:
        """Every domain there is, as it is described.

        Raises:
            CallFailed: libvirt answered with an error.
        """
        known: dict[tuple[str, bool], tuple[bytes, Described]] = {}
        for uuid, text, active in connection.domains():
            digest = blake2b(text.encode(errors="replace"), digest_size=16).digest()
            before = self._known.get((uuid, active))
            same = before is not None and before[0] == digest
            known[uuid, active] = digest, before[1] if before and same else read_domain(uuid, text, active=active)
        self._known = known
        return [described for _, described in known.values()]
