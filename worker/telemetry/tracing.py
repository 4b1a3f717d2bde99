"""Traces: a command's span continues the producer's trace, and its outcome carries it on."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACEPARENT: Final = "traceparent"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?")
_ENTRY_POINTS: Final = "opentelemetry_traces_exporter"


def is_traceparent(text: str) -> bool:
    """Whether a header's value names a trace, as https://www.w3.org/TR/trace-context/ has it."""
    return _TRACEPARENT.fullmatch(text) is not None


class TracingUnavailableError(NodeledgerError):
    """Traces were asked for, and OpenTelemetry or the exporter named is not installed."""


class Span:
    """One command's way through the worker. This one is recorded nowhere and hands on the producer's trace."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent
        """The trace that whatever comes out of the command continues; ``None`` where there is none."""

    def end(self, status: str) -> None:
        """Finish the span with the outcome's status, or the reason of its dead letter."""


class Tracing:
    """Begins spans. Without an exporter it does nothing, and nothing needs to be installed."""

    def __init__(self, exporter: str | None = None, *, version: str = "") -> None:
        """Send spans to the named exporter (``otlp``, ``console``, …), set up by OpenTelemetry's own variables.

        Raises:
            TracingUnavailableError: it is not installed.
        """
        self._provider: Any = None
        self.enabled: Final = exporter is not None
        if exporter is not None:
            self._start(_make_exporter(exporter), version)

    def _start(self, exporter: Any, version: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "nodeledger", "service.version": version})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("nodeledger", version)

    def begin(
        self, traceparent: str | None, *, kind: str, node: str, attributes: Mapping[str, str | int] | None = None
    ) -> Span:
        """Begin the span of one command, as a child of the producer's span where its header is valid."""
        if self._provider is None:
            return Span(traceparent)
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent} if traceparent else {})
        span = self._tracer.start_span(
            f"process {kind}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "rabbitmq",
                "messaging.operation.type": "process",
                "nodeledger.kind": kind,
                "nodeledger.node": node,
                **(attributes or {}),
            },
        )
        return _RecordedSpan(span)

    def close(self) -> None:
        """Send what is left. Blocks for as long as the exporter takes, some seconds at most."""
        if self._provider is not None:
            self._provider.force_flush(5_000)
            self._provider.shutdown()


class _RecordedSpan(Span):
    """A span that OpenTelemetry records."""

    __slots__ = ("_span",)

    def __init__(self, span: Any) -> None:
        from opentelemetry.trace import format_span_id, format_trace_id

        context = span.get_span_context()
        flags = f"{int(context.trace_flags):02x}"
        super().__init__(f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{flags}")
        self._span = span

    def end(self, status: str) -> None:
        self._span.set_attribute("nodeledger.status", status)
        self._span.end()


def _make_exporter(name: str) -> Any:
    from importlib.metadata import entry_points

    if name == "console":
        try:
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter
        except ImportError:
            raise TracingUnavailableError("OpenTelemetry is not installed: install nodeledger[otel]") from None
        return ConsoleSpanExporter(out=sys.stderr)
    for entry in entry_points(group=_ENTRY_POINTS, name=name):
        return entry.load()()
    raise TracingUnavailableError(f"no OpenTelemetry span exporter is called {name}: install the package that has it")
