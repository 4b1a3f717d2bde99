"""Giving parked commands up: out of their lanes and into the dead letters, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from worker.accounting.state.view import Facts
from worker.cli.common.faults import UNREACHABLE, CommandError
from worker.engine.batch import Decider
from worker.engine.intake import Item, unpark
from worker.engine.letters import letter_of
from worker.engine.ports import DeadLetter, LedgerConflict, LedgerUnavailable, Parked, ReadKeys
from worker.ledger.dead_letters import store
from worker.ledger.postgres import PostgresLedger, parked_of
from worker.ledger.statements import statement

if TYPE_CHECKING:
    import asyncpg

REASON: Final = "hypervisor_timeout"
_MAX_ATTEMPTS: Final = 10


async def give_up(pool: asyncpg.Pool, commands: Sequence[UUID], actor: str) -> list[UUID]:
    """Dead-letter parked commands as if they had waited for too long; which were still parked.

    The dead letter, who did it, the command's outcome and the shorter lane
    become true together. The outcomes are published by a worker, within its
    sweep interval.

    Raises:
        CommandError: the database is away, or workers were faster each time.
    """
    for _ in range(_MAX_ATTEMPTS):
        try:
            return await _once(pool, commands, actor)
        except LedgerConflict:  # a worker settled one of them meanwhile
            continue
        except LedgerUnavailable as trouble:
            raise CommandError(f"the database is away ({trouble}): run it again when it is back", UNREACHABLE) from None
    raise CommandError("workers keep changing these commands: run it again")


async def _once(pool: asyncpg.Pool, commands: Sequence[UUID], actor: str) -> list[UUID]:
    rows = await pool.fetch(statement("parked_commands"), commands)
    items = [_dead_lettered(parked_of(row)) for row in rows]
    wanted = ReadKeys(nodes={item.command.node for item in items}, commands=[item.command.id for item in items])
    async with PostgresLedger(pool).transaction(locking=True) as transaction:
        loaded = await transaction.load(wanted)
        result = Decider(loaded, Facts(), 0.0, timedelta(0), lambda _address: None).run(items)
        dropped = {answer.command for answer in result.changes.answers}
        if not dropped:
            return []
        result.changes.outbox = uuid4()
        await transaction.write(loaded, result.changes)
        await store(transaction.connection, [_letter(item) for item in items if item.command.id in dropped])
        await transaction.connection.execute(
            statement("dead_letter_note"), list(dropped), REASON, actor, "dropped", "given up while it was parked"
        )
    return [item.command.id for item in items if item.command.id in dropped]


def _dead_lettered(parked: Parked) -> Item:
    item = unpark(parked)
    item.dead_lettered = (REASON, f"given up by an operator while it was parked: {parked.detail}")
    return item


def _letter(item: Item) -> DeadLetter:
    letter = letter_of(item, *item.dead_lettered) if item.dead_lettered is not None else None
    if letter is None:
        raise AssertionError("only parked commands are given up")
    return letter
