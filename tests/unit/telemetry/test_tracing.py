from __future__ import annotations

import json

import pytest

from worker.telemetry.tracing import Tracing, TracingUnavailableError

PRODUCER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_without_an_exporter_the_producers_trace_is_handed_on() -> None:
    tracing = Tracing()
    span = tracing.begin(PRODUCER, kind="claim", node="cn-017")
    span.end("applied")
    tracing.close()
    assert not tracing.enabled
    assert span.traceparent == PRODUCER
    assert tracing.begin(None, kind="claim", node="cn-017").traceparent is None


def test_a_span_continues_the_producers_trace(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("opentelemetry.sdk")
    tracing = Tracing("console", version="1.2.3")
    span = tracing.begin(PRODUCER, kind="claim", node="cn-017", attributes={"nodeledger.command": "c-1"})
    span.end("applied")
    tracing.close()
    assert span.traceparent is not None
    trace, own = span.traceparent.split("-")[1:3]
    assert trace == PRODUCER.split("-")[1]
    recorded = json.loads(capsys.readouterr().err)
    assert recorded["context"]["span_id"] == f"0x{own}"
    assert recorded["parent_id"] == f"0x{PRODUCER.split('-')[2]}"
    assert recorded["attributes"]["nodeledger.status"] == "applied"
    assert recorded["attributes"]["nodeledger.node"] == "cn-017"


@pytest.mark.parametrize("header", [None, "", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ü" * 1000])
def test_a_header_that_is_no_trace_begins_a_new_one(header: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("opentelemetry.sdk")
    tracing = Tracing("console")
    span = tracing.begin(header, kind="claim", node="cn-017")
    span.end("rejected")
    tracing.close()
    assert json.loads(capsys.readouterr().err)["parent_id"] is None
    assert span.traceparent is not None
    assert span.traceparent != header


def test_an_exporter_that_is_not_installed_is_named() -> None:
    with pytest.raises(TracingUnavailableError, match="nowhere"):
        Tracing("nowhere")
