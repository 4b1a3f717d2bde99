"""Outcomes: written once as text, stored with the command's id, and published as they are stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NotRequired, TypedDict

from pydantic_core import from_json, to_json

from schemas.commands import KINDS, VERSION, Claim, InstanceCommand
from schemas.routing import OUTCOME_EXCHANGE, outcome_key
from worker.accounting.host.compiled import without_pinned
from worker.engine.ports import Outgoing
from worker.telemetry.tracing import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from schemas.outcomes import Status
    from worker.accounting.rules.decision import Decision
    from worker.accounting.state.view import View
    from worker.engine.intake import AnyCommand
    from worker.engine.ports import DeadLetter, ReadSet, Reply

MOST_DRIFT_BYTES: Final = 512 * 1024
"""Differences are listed up to this size: some 2,000 domains. With all else an answer stays below 1 MiB.

What RabbitMQ takes is 16 MiB at most as it comes; what a subscriber reads at once is less.
"""

_UNTRACED: Final[Mapping[str, str]] = {}


class Document(TypedDict):
    """The fields of :class:`schemas.outcomes.Outcome` before they are text.

    To build the model for each outcome takes as long as all of its rendering,
    and checks nothing: its fields are held against the model's by a test, and
    its values against the published schema.
    """

    version: int
    command: UUID
    kind: str
    status: Status
    sequence: int
    node: str
    instance: UUID | None
    at: datetime
    generation: int
    dry_run: bool
    usage: Mapping[str, Mapping[str, int]]
    reasons: Sequence[Mapping[str, object]]
    assignment: NotRequired[Mapping[str, object]]
    assignments: NotRequired[Sequence[Mapping[str, object]]]
    warnings: NotRequired[Sequence[Mapping[str, object]]]
    drift: NotRequired[Sequence[Mapping[str, object]]]
    dead_letter: NotRequired[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """An outcome as it is stored and published."""

    kind: str
    status: Status
    node: str
    text: str


def render(loaded: ReadSet, command: AnyCommand, decision: Decision | None, status: Status) -> Rendered:
    """Write the outcome of a decision; without one, that the command waits behind others."""
    node = decision.node if decision is not None else command.node
    document = _head(loaded, command, node, status)
    if decision is not None:
        if decision.assignment is not None:
            document["assignment"] = decision.assignment
        if decision.assignments is not None:
            document["assignments"] = [
                {"instance": instance.id, "node": where, "assignment": assignment}
                for instance, where, assignment in decision.assignments
            ]
        if decision.warnings:
            document["warnings"] = [notice.model_dump() for notice in decision.warnings]
        if decision.drift is not None:
            document["drift"] = _bounded(decision.drift)
        if any(reason.code == "not_permitted" for reason in decision.reasons):
            document["usage"] = {}
        document["reasons"] = [reason.model_dump(exclude_none=True) for reason in decision.reasons]
    return Rendered(command.kind, status, node, to_json(document).decode())


def render_dead(loaded: ReadSet, command: AnyCommand, reason: str, detail: str, *, permitted: bool = True) -> Rendered:
    """Write that a command is in the dead letters, and why; a sender who may not send it learns nothing of the node."""
    document = _head(loaded, command, command.node, "dead")
    if not permitted:
        document["usage"] = {}
    document["dead_letter"] = {"reason": reason, "detail": detail}
    return Rendered(command.kind, "dead", command.node, to_json(document).decode())


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


def _bounded(drift: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """What an audit found, in full up to a size; what is beyond it is counted by kind."""
    told: list[Mapping[str, object]] = []
    size = 0
    more: Counter[object] = Counter()
    for found in drift:
        size += len(to_json(found)) if size <= MOST_DRIFT_BYTES else 0
        if size <= MOST_DRIFT_BYTES:
            told.append(found)
        else:
            more[found["kind"]] += 1
    for kind, count in more.items():
        told.append({"kind": kind, "detail": f"{count} more of this kind, not listed to keep the answer short"})
    return told


def _head(loaded: ReadSet, command: AnyCommand, node: str, status: Status) -> Document:
    known = loaded.view.nodes.get(node)
    return {
        "version": VERSION,
        "command": command.id,
        "kind": command.kind,
        "status": status,
        "sequence": _sequence(loaded, command),
        "node": node,
        "instance": command.instance if isinstance(command, InstanceCommand | Claim) else None,
        "at": loaded.now,
        "generation": known.generation if known is not None else 0,
        "dry_run": command.dry_run,
        "usage": _usage(loaded.view, node),
        "reasons": [],
    }


def _sequence(loaded: ReadSet, command: AnyCommand) -> int:
    """The place of the next outcome among those of a command."""
    known = loaded.known.get(command.id)
    return 1 if known is None else sequence_of(known.outcome) + 1


def sequence_of(outcome: str) -> int:
    """The place of an outcome among those of its command; 1 of one that was stored before they were counted."""
    found: int = from_json(outcome).get("sequence", 1)
    return found


def _usage(view: View, name: str) -> dict[str, dict[str, int]]:
    node = view.nodes.get(name)
    if node is None or node.host is None:
        return {}
    used = node.occupancy.used
    return {
        resource: {"used": used.get(resource, 0), "capacity": capacity}
        for resource, capacity in without_pinned(node.host, node.occupancy.pinned).ceiling.items()
    }


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
