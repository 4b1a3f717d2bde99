"""The answer to a command as data: what was decided, and the node's usage after it. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NotRequired, TypedDict

from pydantic_core import to_json

from schemas.commands import VERSION, Claim, InstanceCommand
from worker.accounting.host.compiled import without_pinned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from schemas import Command
    from schemas.outcomes import Status
    from worker.accounting.rules.decision import Decision
    from worker.accounting.rules.lifecycle import Expire
    from worker.accounting.rules.looks import Look
    from worker.accounting.state.view import View

MOST_DRIFT_BYTES: Final = 512 * 1024
"""Differences are listed up to this size: some 2,000 domains. With all else an answer stays below 1 MiB.

What RabbitMQ takes is 16 MiB at most as it comes; what a subscriber reads at once is less.
"""


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


def answer(
    view: View,
    now: datetime,
    command: Command | Expire | Look,
    decision: Decision | None,
    status: Status,
    *,
    sequence: int,
) -> Document:
    """The answer of a decision; without one, that the command waits behind others.

    ``sequence`` is its place among the answers to the command.
    """
    node = decision.node if decision is not None else command.node
    document = _head(view, now, command, node, status, sequence)
    if decision is None:
        return document
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
    return document


def dead(
    view: View, now: datetime, command: Command | Expire | Look, reason: str, detail: str, *, sequence: int
) -> Document:
    """The answer that a command is in the dead letters, and why."""
    document = _head(view, now, command, command.node, "dead", sequence)
    document["dead_letter"] = {"reason": reason, "detail": detail}
    return document


def _head(
    view: View, now: datetime, command: Command | Expire | Look, node: str, status: Status, sequence: int
) -> Document:
    known = view.nodes.get(node)
    return {
        "version": VERSION,
        "command": command.id,
        "kind": command.kind,
        "status": status,
        "sequence": sequence,
        "node": node,
        "instance": command.instance if isinstance(command, InstanceCommand | Claim) else None,
        "at": now,
        "generation": known.generation if known is not None else 0,
        "dry_run": command.dry_run,
        "usage": _usage(view, node),
        "reasons": [],
    }


def _usage(view: View, name: str) -> dict[str, dict[str, int]]:
    node = view.nodes.get(name)
    if node is None or node.host is None:
        return {}
    used = node.occupancy.used
    return {
        resource: {"used": used.get(resource, 0), "capacity": capacity}
        for resource, capacity in without_pinned(node.host, node.occupancy.pinned).ceiling.items()
    }


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
