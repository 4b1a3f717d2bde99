from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

from tests.unit.engine.doubles import audit
from worker.accounting.state.view import Facts
from worker.engine.commit import Committer
from worker.engine.intake import Item
from worker.engine.lanes import Lanes
from worker.engine.outbox import Outbox
from worker.engine.ports import Broker, Ledger
from worker.engine.result import Result
from worker.telemetry.metrics import Metrics


class Attempts:
    """A ledger of attempts alone, with what was done to them and in which order."""

    def __init__(self, before: dict[UUID, int]) -> None:
        self._before = before
        self.done: list[tuple[str, int]] = []

    def note(self, what: str, commands: Sequence[UUID]) -> None:
        self.done += [(what, command.int) for command in commands]

    async def attempts(self, _commands: Sequence[UUID]) -> dict[UUID, int]:
        return self._before

    async def count_attempts(self, commands: Sequence[UUID]) -> None:
        self.note("counted", commands)

    async def uncount_attempts(self, commands: Sequence[UUID]) -> None:
        self.note("taken back", commands)


class Waiting(Committer):
    """A committer all of whose commands wait for an answer."""

    async def _isolating(self, items: Sequence[Item], _facts: Facts, _attempts: int = 1) -> list[Result]:
        cast(Attempts, self.ledger).note("tried", [item.command.id for item in items])
        return [Result(held=list(items))]


async def test_what_waits_is_taken_back_before_what_is_tried_alone_behind_it_is_begun() -> None:
    ledger, metrics = Attempts({UUID(int=2): 1}), Metrics("0")
    committer = Waiting(
        Lanes(),
        cast(Ledger, ledger),
        Outbox(cast(Broker, None), cast(Ledger, ledger), metrics, 1.0),
        metrics,
        10,
        timedelta(days=1),
        refusal=lambda _uri: None,
        hand_on=lambda _result: None,
    )
    items = [audit("cn-1", 1), audit("cn-2", 2)]
    for item in items:
        assert item.delivery is not None
        item.delivery.redelivered = True
    await committer._guarded(items, Facts())
    each = ["counted", "tried", "taken back"]
    assert ledger.done == [(what, number) for number in (1, 2) for what in each]
