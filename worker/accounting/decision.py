"""What was decided: a status, the reasons, and the new versions of what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas import NodePut
    from schemas.outcomes import Notice, ReasonCode
    from worker.accounting.instances import Instance


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one command, and everything that applying it changes.

    Only ``instances`` carry resources: what a node is charged follows from the
    difference between their old and new versions (:mod:`worker.accounting.post`),
    so that nothing can be released that was not charged.

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
    failed_builds: Mapping[str, int] | None = None
    warnings: tuple[Notice, ...] = ()
    drift: tuple[Mapping[str, object], ...] | None = None
    blocking: bool = True


def reason(code: ReasonCode, detail: str, *, node: str | None = None, resource: str | None = None) -> Reason:
    """A reason without figures."""
    return Reason.model_construct(code=code, detail=detail, node=node, resource=resource)


def rejected(node: str, reasons: Iterable[Reason]) -> Decision:
    """A refusal with every reason for it."""
    return Decision("rejected", node, tuple(reasons))


def refuse(node: str, code: ReasonCode, detail: str) -> Decision:
    """A refusal for one reason."""
    return Decision("rejected", node, (reason(code, detail, node=node),))
