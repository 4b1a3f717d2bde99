"""Giving parked commands up: out of their lanes and into the dead letters, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from worker.accounting.state.view import Facts
from worker.engine.batch import Decider
from worker.engine.intake import Item, unpark
from worker.engine.letters import letter_of
from worker.engine.ports import DeadLetter, LedgerConflict, LedgerUnavailable, Parked, ReadKeys
from worker.errors import OperationError, UnreachableError
from worker.ledger.dead_letters import note, store
from worker.ledger.parked import repair, waiting_commands
from worker.ledger.postgres import PostgresLedger

if TYPE_CHECKING:
    import asyncpg

    from worker.operations.reporting import Progress

REASON: Final = "hypervisor_timeout"
_MAX_ATTEMPTS: Final = 10
_TOGETHER: Final = 200
"""Commands given up in one transaction: it locks their nodes, and holds up the workers no longer than a batch."""


async def give_all_up(
    pool: asyncpg.Pool,
    *,
    nodes: Sequence[str] | None,
    commands: Sequence[UUID] | None,
    actor: str,
    progress: Progress,
) -> set[UUID]:
    """Give up what is parked now of these nodes and ids, in order, so that a replay has them in it too; which it was.

    What contradicts itself about the parked commands of these nodes is put right first.

    Raises:
        OperationError, UnreachableError: as :func:`give_up`.
    """
    given_up: set[UUID] = set()
    found = await waiting_commands(pool, nodes=nodes, commands=commands)
    everywhere = nodes is None and commands is None
    await repair(pool, None if everywhere else sorted({*(nodes or ()), *(one.node for one in found)}))
    ids = [one.command for one in found]
    with progress("dropping") as advance:
        for start in range(0, len(ids), _TOGETHER):
            part = ids[start : start + _TOGETHER]
            given_up.update(await give_up(pool, part, actor))
            advance(len(part))
    return given_up


async def give_up(pool: asyncpg.Pool, commands: Sequence[UUID], actor: str) -> list[UUID]:
    """Dead-letter parked commands as if they had waited for too long; which were still parked.

    The dead letter, who did it, the command's outcome and the shorter lane
    become true together. The outcomes are published by a worker, within its
    sweep interval.

    Raises:
        OperationError: workers were faster each time.
        UnreachableError: the database is away.
    """
    for _ in range(_MAX_ATTEMPTS):
        try:
            return await _once(pool, commands, actor)
        except LedgerConflict:  # a worker settled one of them meanwhile
            continue
        except LedgerUnavailable as trouble:
            raise UnreachableError(f"the database is away ({trouble}): run it again when it is back") from None
    raise OperationError("workers keep changing these commands: run it again")


async def _once(pool: asyncpg.Pool, commands: Sequence[UUID], actor: str) -> list[UUID]:
    ledger = PostgresLedger(pool)
    items = [_dead_lettered(parked) for parked in await ledger.parked_commands(commands)]
    wanted = ReadKeys(nodes={item.command.node for item in items}, commands=[item.command.id for item in items])
    async with ledger.transaction(locking=True) as transaction:
        loaded = await transaction.load(wanted)
        result = Decider(loaded, Facts(), 0.0, timedelta(0), lambda _address: None).run(items)
        dropped = {answer.command for answer in result.changes.answers}
        if not dropped:
            return []
        result.changes.outbox = uuid4()
        await transaction.write(loaded, result.changes)
        await store(transaction.connection, [_letter(item) for item in items if item.command.id in dropped])
        await note(
            transaction.connection,
            list(dropped),
            REASON,
            actor=actor,
            action="dropped",
            detail="given up while it was parked",
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
