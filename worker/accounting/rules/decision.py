"""What was decided: a status, the reasons, and the new versions of what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic_core import to_json

from schemas import Reason
from worker.accounting.reasons.refusals import MOST_BYTES, collected, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from schemas import NodePut
    from schemas.outcomes import Notice, ReasonCode
    from worker.accounting.state.instances import Instance


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one command, and everything that applying it changes.

    Only ``instances`` carry resources: what a node is charged follows from the
    difference between their old and new versions (:mod:`worker.accounting.post`),
    so that nothing can be released that was not charged.

    ``renamed`` is the name that the node had before its ``settings``.

    Of differences ``passed_over``, by kind and instance, nothing new is said: what
    is known of them stays. With ``look_again`` the node is to be looked at again
    soon: something there is under way.

    ``parked`` decisions change nothing; with ``blocking`` the commands behind
    this one wait too.
    """

    status: Literal["applied", "rejected", "parked"]
    node: str
    reasons: tuple[Reason, ...] = ()
    instances: tuple[Instance, ...] = ()
    assignment: Mapping[str, object] | None = None
    assignments: tuple[tuple[Instance, str, Mapping[str, object]], ...] | None = None
    settings: NodePut | None = None
    removed: str | None = None
    renamed: str | None = None
    failed_builds: Mapping[str, int] | None = None
    warnings: tuple[Notice, ...] = ()
    drift: tuple[Mapping[str, object], ...] | None = None
    passed_over: frozenset[tuple[str, UUID]] = frozenset()
    look_again: bool = False
    blocking: bool = True


_SURELY_SHORT: Final = 128
"""Devices that an answer has room for, whatever their names."""

_CELL_UNITS: Final = 16
"""For how many devices a cell counts: its sets of CPUs may be long."""


def unanswerable(decision: Decision) -> int:
    """The size in bytes of the assignments, which cannot be summed up, if an answer has no room for them; or 0."""
    given: list[Any] = [] if decision.assignment is None else [decision.assignment]
    given += [assignment for _, _, assignment in decision.assignments or ()]
    if sum(len(one["devices"]) + _CELL_UNITS * len(one["cells"]) for one in given) <= _SURELY_SHORT:
        return 0
    size = len(to_json(given))
    return size if size > MOST_BYTES else 0


def rejected(node: str, reasons: Sequence[Reason]) -> Decision:
    """A refusal with every reason for it; too many are summed up."""
    return Decision("rejected", node, collected(reasons))


def refuse(node: str, code: ReasonCode, detail: str) -> Decision:
    """A refusal for one reason."""
    return Decision("rejected", node, (refusal(code, detail, node=node),))
