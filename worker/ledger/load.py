"""How busy hosts are, as they were looked at last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from worker.ledger.statements import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from worker.ledger.statements import Connection


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """A host's CPU time by mode since the look before, in percent, and its memory in use; ``None`` what it hides."""

    node: str
    at: datetime
    user_percent: int | None
    kernel_percent: int | None
    iowait_percent: int | None
    idle_percent: int | None
    memory_used_mib: int | None

    @property
    def busy_percent(self) -> int | None:
        """The share of CPU time that was neither idle nor waiting for disks."""
        if self.user_percent is None or self.kernel_percent is None:
            return None
        return self.user_percent + self.kernel_percent


async def node_loads(connection: Connection | asyncpg.Pool, names: Sequence[str] | None = None) -> dict[str, NodeLoad]:
    """How busy the hosts of these names, or all, are; those that were never looked at are left out."""
    rows = await connection.fetch(statement("show_load"), names)
    return {row["node"]: NodeLoad(**row) for row in rows}
