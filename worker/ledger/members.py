"""The pool of workers: who is alive, and who should serve which shard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from worker.errors import OperationError
from worker.ledger.installation import installation
from worker.ledger.statements import Connection, statement

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_FORGET_SECONDS: Final = 86_400.0


class ShardsDifferError(OperationError):
    """This worker is set to another number of shards than the installation has; change one of the two."""


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that was seen lately."""

    id: UUID
    name: str
    started_at: datetime
    seen_at: datetime


def balanced(owners: Mapping[int, UUID | None], members: Collection[UUID], shards: int) -> dict[int, UUID]:
    """Share ``shards`` among members: counts differ by one at most, as few shards as possible change hands.

    Equal arguments give equal answers, whoever asks. Empty without members.
    """
    held: dict[UUID, list[int]] = {member: [] for member in sorted(members)}
    if not held:
        return {}
    for shard in range(shards):
        owner = owners.get(shard)
        if owner in held:
            held[owner].append(shard)
    share, extra = divmod(shards, len(held))
    richest_first = sorted(held, key=lambda member: (-len(held[member]), member))
    quota = {member: share + (place < extra) for place, member in enumerate(richest_first)}
    plan = {shard: member for member, own in held.items() for shard in own[: quota[member]]}
    unserved = iter([shard for shard in range(shards) if shard not in plan])
    for member, own in held.items():
        for _ in range(quota[member] - len(own)):
            plan[next(unserved)] = member
    return dict(sorted(plan.items()))


class Members:
    """One worker's place in the pool.

    A member counts as alive while its last heartbeat is at most
    ``alive_seconds`` old by the database's clock.
    """

    def __init__(self, pool: asyncpg.Pool, member: UUID, name: str, *, alive_seconds: float = 5.0) -> None:
        self._pool = pool
        self._member = member
        self._name = name
        self._alive_seconds = alive_seconds

    async def heartbeat(self) -> None:
        """Say that this worker is alive; the first one joins the pool."""
        try:
            await self._pool.execute(statement("member_heartbeat"), self._member, self._name)
        except asyncpg.ReadOnlySQLTransactionError:
            await self._pool.expire_connections()  # an idle worker uses one every second, and would forever
            raise

    async def leave(self) -> None:
        """Leave the pool at once instead of being missed."""
        await self._pool.execute(statement("member_leave"), self._member)

    async def alive(self) -> list[Member]:
        """Everyone who is alive, in the order of their ids."""
        return await members_alive(self._pool, self._alive_seconds)

    async def assign(self, shards: int) -> dict[int, UUID]:
        """Who should serve each shard now; what changed is written down for all.

        Every worker may ask at any time: one at a time decides, and the others
        find it decided.

        Raises:
            ShardsDifferError: the number was changed behind this worker's back.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(statement("shards_lock"))
            await _insist(connection, shards)
            alive = [member.id for member in await members_alive(connection, self._alive_seconds)]
            owners = {row["number"]: row["owner"] for row in await connection.fetch(statement("shard_owners"))}
            plan = balanced(owners, alive, shards)
            changed = {shard: owner for shard, owner in plan.items() if owners.get(shard) != owner}
            if changed or any(shard >= shards for shard in owners):
                await connection.execute(statement("shard_assign"), list(changed), list(changed.values()), shards)
                await connection.execute(statement("members_forget"), _FORGET_SECONDS)
        return plan


async def members_alive(connection: Connection | asyncpg.Pool, seconds: float) -> list[Member]:
    """Workers that were seen within so many seconds by the database's clock, in the order of their ids."""
    return [Member(*row.values()) for row in await connection.fetch(statement("members_alive"), seconds)]


async def agree_on_shards(connection: Connection, shards: int) -> None:
    """Hold this worker's number of shards against the installation's; the first worker's becomes it.

    Raises:
        ShardsDifferError: the installation has another number.
    """
    agreed = None
    while agreed is None:  # nothing is seen while another worker's very first statement is being committed
        agreed = await connection.fetchval(statement("shards_agree"), shards)
    if agreed != shards:
        raise ShardsDifferError(f"this worker is set to {shards} shards, the installation has {agreed}")
    await _insist(connection, shards)


async def _insist(connection: Connection, shards: int) -> None:
    """Hold a worker's number against what the installation has now, if any has been agreed on.

    Raises:
        ShardsDifferError: it has another, or is changing it.
    """
    found = await installation(connection)
    if found is None:
        return
    if found.resharding_to is not None:
        target = found.resharding_to
        raise ShardsDifferError(f"the shards are being changed: run `nodeledger topology reshard {target}` to its end")
    if found.shards != shards:
        raise ShardsDifferError(f"this worker is set to {shards} shards, the installation has {found.shards}")
