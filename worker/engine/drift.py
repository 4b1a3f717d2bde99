"""Drift on its way to the record: what the audits of a batch found, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.accounting.rules.drift import Difference, DriftChange, changed, differences
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker.accounting.rules.decision import Decision

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What the last audit of a node found to differ, and of what it says nothing."""

    differences: Sequence[Difference]
    passed_over: frozenset[tuple[str, UUID]]


def note_drift(differing: dict[str, Found], decision: Decision) -> None:
    """Keep what the last audit of each node found; of a node that is removed, nothing."""
    if decision.drift is not None:
        differing[decision.node] = Found(differences(decision.node, decision.drift), decision.passed_over)
    elif decision.removed is not None:
        differing.pop(decision.removed, None)


def drift_change(known: Mapping[str, Sequence[Difference]], differing: Mapping[str, Found]) -> DriftChange:
    """Hold what audits found against what was known: what began, what is still there, and what is over."""
    total = DriftChange()
    for node, found in differing.items():
        before = [one for one in known.get(node, ()) if (one.kind, one.instance) not in found.passed_over]
        change = changed(before, found.differences)
        total.begun += change.begun
        total.kept += change.kept
        total.ended += change.ended
    return total


def log_drift(change: DriftChange) -> None:
    """Tell of each difference once when it begins, and once when it is over."""
    for one in change.begun:
        _log.warning("drift began", node=one.node, instance=one.instance, drift=one.kind, detail=one.detail)
    for one in change.ended:
        _log.info("drift ended", node=one.node, instance=one.instance, drift=one.kind, detail=one.detail)
