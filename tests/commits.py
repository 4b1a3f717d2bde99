"""The middle of the path alone: what a worker's committer makes of a batch, without a worker around it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from worker.accounting.state.view import Facts
from worker.engine.commit import Committer
from worker.engine.intake import Item
from worker.engine.lanes import Lanes
from worker.engine.outbox import Outbox
from worker.engine.ports import Broker, Ledger
from worker.engine.result import Result
from worker.telemetry.metrics import Metrics


async def commit(
    ledger: Any, items: Sequence[Item], facts: Facts | None = None, park_deadline: timedelta = timedelta(days=1)
) -> list[Result]:
    """Commit a batch as a worker does, however often that takes; its outcomes stay in the outbox."""
    metrics = Metrics("0")
    committer = Committer(
        Lanes(),
        cast(Ledger, ledger),
        Outbox(cast(Broker, None), cast(Ledger, ledger), metrics, 1.0),
        metrics,
        len(items),
        park_deadline,
        refusal=lambda _uri: None,
        hand_on=lambda _result: None,
    )
    return await committer._guarded(items, facts or Facts())
