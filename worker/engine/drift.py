"""Drift on its way to the record: what the audits of a batch found, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.rules.drift import Difference, DriftChange, changed, differences
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.accounting.rules.decision import Decision

_log = get_logger(__name__)


def note_drift(differing: dict[str, list[Difference]], decision: Decision) -> None:
    """Keep what the last audit of each node found; of a node that is removed, nothing."""
    if decision.drift is not None:
        differing[decision.node] = differences(decision.node, decision.drift)
    elif decision.removed is not None:
        differing.pop(decision.removed, None)


def drift_change(
    known: Mapping[str, Sequence[Difference]], differing: Mapping[str, Sequence[Difference]]
) -> DriftChange:
    """Hold what audits found against what was known: what began, what is still there, and what is over."""
    total = DriftChange()
    for node, found in differing.items():
        change = changed(known.get(node, ()), found)
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
