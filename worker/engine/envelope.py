"""What must outlive a message that could not be applied: whose it was, and where its answer goes.

A dead letter carries both as headers, since its own properties are those of
who dead-lettered it; its replay takes them from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.engine.permissions import senders_of
from worker.engine.ports import CORRELATION_HEADER, NOBODY, REPLY_TO_HEADER, SENDERS_HEADER, Reply
from worker.telemetry.tracing import TRACEPARENT, is_traceparent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.engine.intake import Item

_MAX_BYTES: Final = 255  # of a property, by AMQP


@dataclass(frozen=True, slots=True)
class Envelope:
    """The users through whose hands a message went, one a line, and what its answer carries back."""

    senders: str
    reply: Reply

    @classmethod
    def of_item(cls, item: Item) -> Envelope:
        """The envelope of a command on its way."""
        return cls("\n".join(senders_of(item)), item.reply)

    @classmethod
    def of_letter(cls, headers: Mapping[str, object] | None) -> Envelope:
        """The envelope of the message that a dead letter was; headers that nobody vouches for are nobody's."""
        told = {name: value for name, value in (headers or {}).items() if isinstance(value, str)}
        to, correlation = (_short(told.get(name)) for name in (REPLY_TO_HEADER, CORRELATION_HEADER))
        trace = told.get(TRACEPARENT, "")
        return cls(told.get(SENDERS_HEADER, NOBODY), Reply(to, correlation, trace if is_traceparent(trace) else None))

    def on_replay(self) -> dict[str, Any]:
        """The headers of the message sent again; where its answer goes, its properties say once more."""
        trace = self.reply.traceparent
        return {SENDERS_HEADER: self.senders} | ({} if trace is None else {TRACEPARENT: trace})

    def on_letter(self, headers: Mapping[str, object]) -> dict[str, object]:
        """A message's own headers with its envelope among them."""
        ours = {REPLY_TO_HEADER: self.reply.to, CORRELATION_HEADER: self.reply.correlation_id}
        kept = {name: value for name, value in headers.items() if name not in ours}
        return {**kept, **self.on_replay(), **{name: value for name, value in ours.items() if value is not None}}


def _short(text: str | None) -> str | None:
    return text if text is not None and len(text.encode()) <= _MAX_BYTES else None
