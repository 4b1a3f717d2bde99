from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from worker.engine.lanes import Lanes
from worker.engine.parking import Intervals, ParkedProbes
from worker.engine.ports import NO_REPLY, Parked
from worker.telemetry.metrics import Metrics

NODE = "cn-1"


def parked(kind: str, *, blocking: bool) -> Parked:
    id_ = uuid4()
    body = (
        f'{{"version":1,"id":"{id_}","kind":"{kind}","node":"{NODE}","issued_at":"2026-01-01T00:00:00Z",'
        f'"instance":"{uuid4()}"}}'
    )
    now = datetime.now(UTC)
    return Parked(
        node=NODE,
        command=id_,
        body=body.encode(),
        reply=NO_REPLY,
        user_id=None,
        received_at=now,
        blocking=blocking,
        detail="",
        parked_at=now,
    )


class WaitingLedger:
    """Has one node with parked commands, and tells how long it is left alone."""

    def __init__(self, waiting: Sequence[Parked]) -> None:
        self._waiting = waiting
        self.pause: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def parked_in_all(self) -> tuple[int, int]:
        return len(self._waiting), 1

    async def drift_in_all(self) -> dict[str, int]:
        return {}

    async def forget_probes(self) -> None:
        """Nothing to forget."""

    async def due_probes(self, _limit: int, **_pauses: float) -> list[str]:
        return [] if self.pause.done() else [NODE]

    async def addresses(self, nodes: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(nodes, "test:///default")

    async def parked(self, _node: str, _limit: int) -> list[Parked]:
        return list(self._waiting)

    async def probe_again(self, _node: str, seconds: float) -> None:
        self.pause.set_result(seconds)


async def pause_of_a_node_that_answers(waiting: Sequence[Parked]) -> float:
    async def inventory(_node: str, _uri: str) -> object:
        return object()

    ledger = WaitingLedger(waiting)
    probes = ParkedProbes(
        cast("Any", ledger),
        cast("Any", SimpleNamespace(inventory=inventory, host_uuid=lambda _node: None)),
        Lanes(),
        Metrics(),
        Intervals(least=0.001, most=30.0, verify=7.0, deadline=timedelta(days=1)),
    )
    service = asyncio.create_task(probes.run())
    try:
        futures: list[asyncio.Future[Any]] = [service, ledger.pause]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        assert ledger.pause.done(), service.exception()
        return ledger.pause.result()
    finally:
        service.cancel()


@pytest.mark.parametrize("deletes", [1, 3])
async def test_a_hypervisor_is_asked_again_after_the_set_pause_whether_a_deleted_instances_domain_is_gone(
    deletes: int,
) -> None:
    assert await pause_of_a_node_that_answers([parked("delete", blocking=False)] * deletes) == 7.0


async def test_a_node_that_answers_is_not_left_alone_while_others_wait_behind_what_is_parked() -> None:
    waiting = [parked("delete", blocking=False), parked("confirm", blocking=True)]
    assert await pause_of_a_node_that_answers(waiting) == 0.001


async def test_a_node_that_answers_is_not_left_alone_while_more_is_parked_than_one_page() -> None:
    assert await pause_of_a_node_that_answers([parked("delete", blocking=False)] * 500) == 0.001
