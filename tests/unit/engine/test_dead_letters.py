from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from schemas import Audit
from tests.commits import commit
from worker.engine.intake import Item
from worker.engine.ports import Delivery


class BrokenLedger:
    """A ledger that no command gets through."""

    @asynccontextmanager
    async def transaction(self, *, locking: bool) -> AsyncIterator[Any]:  # noqa: ARG002 - as the port has it
        yield self

    async def load(self, _wanted: object) -> Any:
        raise ValueError("this cannot be written")


async def test_what_fails_is_dead_lettered_once_even_if_its_dead_letter_cannot_be_written_down() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    command = Audit(version=1, id=UUID(int=1), node="cn-1", kind="audit", issued_at=now)
    item = Item(command, UUID(int=2), Delivery(0, b"{}", 1, None, False, 0.0))
    (first,) = await commit(BrokenLedger(), [item])
    assert [reason for _, reason, _ in first.dead_lettered] == ["poison"]
    item.dead_lettered = first.dead_lettered[0][1:]
    (second,) = await commit(BrokenLedger(), [item])
    assert (second.dead_lettered, second.done) == ([], [item])
