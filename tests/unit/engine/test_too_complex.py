from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from schemas import Claim
from schemas.policy import Policy
from tests.commits import commit
from tests.unit.accounting.builders import host, pci, wanted
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Node, View
from worker.engine.intake import Item
from worker.engine.ports import Delivery, ReadSet, WriteSet

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class OneNode:
    """A ledger with one node of many devices, that forgets what is written."""

    @asynccontextmanager
    async def transaction(self, *, locking: bool) -> AsyncIterator[Any]:  # noqa: ARG002 - as the port has it
        yield self

    async def load(self, _wanted: object) -> ReadSet:
        here = host(devices=[pci(f"0000:{number:02x}:00.0") for number in range(200)])
        return ReadSet(View(nodes={"cn-1": Node("cn-1", Policy(), Occupancy(), host=here)}), {}, NOW)

    async def write(self, _loaded: object, changes: WriteSet) -> None:
        self.changes = changes


async def test_a_command_beyond_the_bound_on_work_is_refused_and_logged() -> None:
    patterns = [{"address": f"*{number:02x}:?0.*"} for number in range(64)]
    command = Claim.model_validate(
        {
            "version": 1,
            "id": UUID(int=1),
            "node": "cn-1",
            "kind": "claim",
            "issued_at": NOW,
            "instance": UUID(int=2),
            "project": "p",
            "resources": {"vcpus": 1, "memory_mib": 1},
            "devices": [wanted(f"d{number}", match=patterns) for number in range(8)],
        }
    )
    ledger = OneNode()
    with capture_logs(processors=[merge_contextvars]) as logs:
        await commit(ledger, [Item(command, UUID(int=2), Delivery(0, b"{}", 1, None, False, 0.0))])
    assert [answer.codes for answer in ledger.changes.answers] == [("too_complex",)]
    assert {"event": "refused as too complex", "log_level": "warning", "command": str(command.id)}.items() <= (
        logs[0].items()
    )
