from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from schemas import Audit
from worker.accounting.view import Facts
from worker.engine.batch import Result
from worker.engine.commit import Committer
from worker.engine.intake import Item
from worker.engine.lanes import Lanes
from worker.engine.ports import Delivery, Ledger
from worker.telemetry.metrics import Metrics


class BrokenLedger:
    """A ledger that no command gets through."""

    @asynccontextmanager
    async def transaction(self, *, locking: bool) -> AsyncIterator[Any]:  # noqa: ARG002 - as the port has it
        yield self

    async def load(self, _wanted: object) -> Any:
        raise ValueError("this cannot be written")


class NoOutbox:
    def take_published(self) -> list[UUID]:
        return []

    def give_back(self, published: list[UUID]) -> None:
        """Nothing was taken."""


async def _settled(item: Item) -> Result:
    lanes = Lanes()
    committer = Committer(
        lanes, cast("Ledger", BrokenLedger()), cast("Any", NoOutbox()), Metrics("0"), 1, timedelta(days=1),
        lambda _uri: None, lambda _result: None,
    )  # fmt: skip
    lanes.add(item)
    batch = await lanes.take(1)
    assert batch is not None
    (result,) = await committer._isolating(batch.items, Facts())
    return result


async def test_what_fails_is_buried_once_even_if_its_burial_cannot_be_written_down() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    command = Audit(version=1, id=UUID(int=1), node="cn-1", kind="audit", issued_at=now)
    item = Item(command, UUID(int=2), Delivery(0, b"{}", 1, None, False, 0.0))
    first = await _settled(item)
    assert [reason for _, reason, _ in first.buried] == ["poison"]
    item.buried = first.buried[0][1:]
    second = await _settled(item)
    assert (second.buried, second.done) == ([], [item])
