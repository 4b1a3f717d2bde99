"""Qualities a node must have or must not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.reasons.refusals import Refusals, refusal
from worker.accounting.work import MOST_REASONS

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from schemas.outcomes import Reason
    from schemas.requests import Traits


def trait_breaches(present: AbstractSet[str], wanted: Traits, most: int = MOST_REASONS) -> list[Reason]:
    """A reason for every required trait that is missing and every forbidden one that is present."""
    missing = sorted(set(wanted.required) - present)
    unwanted = sorted(set(wanted.forbidden) & present)
    reasons = Refusals(most)
    for names, fault in ((missing, "lacks the required"), (unwanted, "has the forbidden")):
        for name in names:
            if reasons.room("missing_trait"):
                reasons.listed.append(refusal("missing_trait", f"the node {fault} trait {name}", resource=name))
    return reasons.all()
