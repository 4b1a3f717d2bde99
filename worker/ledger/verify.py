"""Recompute everything that is kept twice, and say where the copies differ.

``use``
    stored use = sum of allocations = sum of entries, for each node and counter
``chain``
    each entry's use afterwards is the sum of the changes up to it
``charge``
    each allocation bears what its request costs; a move within a node only the larger of both sizes
``holding``
    pinned CPUs and held devices are the same in the tables, the allocations and the entries
``instance``
    each instance has at most one place, or one move; a deleted one has nothing
``parked``
    waiting commands are counted right, and neither answered nor lost
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from worker.ledger.statements import statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncpg

Rule = Literal["use", "chain", "charge", "holding", "instance", "parked"]
_STATEMENTS: Final[dict[Rule, str]] = {
    "use": "verify_use",
    "chain": "verify_chain",
    "charge": "verify_charge",
    "holding": "verify_holdings",
    "instance": "verify_instances",
    "parked": "verify_parked",
}
RULES: Final = tuple(_STATEMENTS)


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the ledger contradicts itself. ``subject`` is a counter, a CPU, a device or a command."""

    rule: Rule
    node: str | None
    instance: UUID | None
    subject: str
    detail: str


async def verify(
    pool: asyncpg.Pool, *, begun: Callable[[Rule], None] = lambda _rule: None
) -> AsyncIterator[Difference]:
    """Yield every difference, all seen at the same moment while the workers go on.

    ``begun`` is told of each rule before it is checked.

    Raises:
        asyncpg.PostgresError, OSError: as :mod:`worker.ledger.errors` tells apart.
    """
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(statement("verify_begin"), timeout=10.0)
        for rule in RULES:
            begun(rule)
            for row in await connection.fetch(statement(_STATEMENTS[rule]), timeout=None):
                yield Difference(**row)
