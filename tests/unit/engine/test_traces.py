from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from worker.engine.intake import Intake, Item
from worker.engine.lanes import Lanes
from worker.engine.outcomes import Rendered, messages
from worker.engine.ports import Delivery
from worker.telemetry.tracing import Tracing

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMMAND = {
    "version": 1,
    "id": "00000000-0000-0000-0000-000000000001",
    "kind": "node.remove",
    "node": "cn-1",
    "issued_at": "2026-11-22T12:00:00Z",
}


async def taken(headers: Mapping[str, object], tracing: Tracing | None = None) -> Item:
    lanes = Lanes()
    body = json.dumps(COMMAND).encode()
    Intake(lanes, 1, tracing).receive(Delivery(0, body, 1, None, False, 0.0, reply_to="producer", headers=headers))
    batch = await lanes.take(1)
    assert batch is not None
    return batch.items[0]


async def test_an_outcome_and_its_copy_continue_the_producers_trace() -> None:
    item = await taken({"traceparent": TRACE})
    sent = list(messages(Rendered("node.remove", "applied", "cn-1", "{}"), str(item.command.id), item.reply))
    assert [(message.exchange, dict(message.headers)) for message in sent] == [
        ("", {"traceparent": TRACE}),
        ("nodeledger.outcomes", {"traceparent": TRACE}),
    ]


@pytest.mark.parametrize("header", [None, 7, "", "nonsense", f"{TRACE}\r\nx: y", TRACE.replace("0af7", "GHIJ")])
async def test_a_header_that_names_no_trace_goes_no_further(header: object) -> None:
    item = await taken({"traceparent": header})
    for message in messages(Rendered("node.remove", "applied", "cn-1", "{}"), str(item.command.id), item.reply):
        assert not message.headers


async def test_where_traces_are_recorded_the_outcome_continues_the_workers_own_span() -> None:
    pytest.importorskip("opentelemetry.sdk")
    item = await taken({"traceparent": TRACE}, Tracing("console"))
    assert item.span is not None
    continued = item.reply.traceparent or ""
    assert continued == item.span.traceparent
    assert continued.split("-")[1] == TRACE.split("-")[1]
    assert continued != TRACE
