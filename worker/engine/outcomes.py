"""Outcomes: written once as text, stored with the command's id, and published as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json, to_json

from schemas.commands import KINDS, VERSION
from schemas.routing import OUTCOME_EXCHANGE, outcome_key
from worker.accounting.answers import answer, dead
from worker.engine.ports import Outgoing
from worker.telemetry.tracing import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from schemas.outcomes import Status
    from worker.accounting.answers import Document
    from worker.accounting.rules.decision import Decision
    from worker.engine.intake import AnyCommand
    from worker.engine.ports import DeadLetter, ReadSet, Reply

_UNTRACED: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Rendered:
    """An outcome as it is stored and published."""

    kind: str
    status: Status
    node: str
    text: str


def render(loaded: ReadSet, command: AnyCommand, decision: Decision | None, status: Status) -> Rendered:
    """Write the outcome of a decision; without one, that the command waits behind others."""
    sequence = _sequence(loaded, command)
    return _written(answer(loaded.view, loaded.now, command, decision, status, sequence=sequence))


def render_dead(loaded: ReadSet, command: AnyCommand, reason: str, detail: str, *, permitted: bool = True) -> Rendered:
    """Write that a command is in the dead letters, and why; a sender who may not send it learns nothing of the node."""
    document = dead(loaded.view, loaded.now, command, reason, detail, sequence=_sequence(loaded, command))
    if not permitted:
        document["usage"] = {}
    return _written(document)


def _written(document: Document) -> Rendered:
    return Rendered(document["kind"], document["status"], document["node"], to_json(document).decode())


def dead_answer(letter: DeadLetter, reply: Reply, now: datetime) -> list[Outgoing]:
    """What tells the sender of a message that is no command, or another command's, that it is in the dead letters.

    Only what could be read of it is told, and to nobody if that is not its id.
    Subscribers are told where its kind and node could be read too, and where the
    id is not that of another command, whose outcome they know.
    """
    if letter.command is None:
        return []
    node, kind = letter.node or "", letter.kind or ""
    document: Document = {
        "version": VERSION,
        "command": letter.command,
        "kind": kind,
        "status": "dead",
        "sequence": 0,
        "node": node,
        "instance": None,
        "at": now,
        "generation": 0,
        "dry_run": False,
        "usage": {},
        "reasons": [],
        "dead_letter": {"reason": letter.reason, "detail": letter.detail},
    }
    rendered = Rendered(kind, "dead", node, to_json(document).decode())
    everybody = kind in KINDS and node and letter.reason != "id_reuse"
    found = messages(rendered, str(letter.command), reply)
    return [message for message in found if everybody or not message.exchange]


def _sequence(loaded: ReadSet, command: AnyCommand) -> int:
    """The place of the next outcome among those of a command."""
    known = loaded.known.get(command.id)
    return 1 if known is None else sequence_of(known.outcome) + 1


def sequence_of(outcome: str) -> int:
    """The place of an outcome among those of its command; 1 of one that was stored before they were counted."""
    found: int = from_json(outcome).get("sequence", 1)
    return found


def messages(rendered: Rendered, command: str, reply: Reply) -> Iterator[Outgoing]:
    """The outcome for the sender that asked for a copy, and for all subscribers.

    In this order: what the broker answers for the second tells that a queue of
    the sender's own holds up the first.

    A ``reply_to`` that names a queue of the product's own is not served: an
    answer must never become a command.
    """
    body = rendered.text.encode()
    key = outcome_key(rendered.kind, rendered.status, rendered.node)
    headers = _UNTRACED if reply.traceparent is None else {TRACEPARENT: reply.traceparent}
    if reply.to is not None and not reply.to.startswith("nodeledger."):
        yield Outgoing(
            exchange="",
            routing_key=reply.to,
            body=body,
            message_id=command,
            correlation_id=reply.correlation_id,
            headers=headers,
        )
    yield Outgoing(
        exchange=OUTCOME_EXCHANGE,
        routing_key=key,
        body=body,
        message_id=command,
        correlation_id=reply.correlation_id,
        headers=headers,
    )
