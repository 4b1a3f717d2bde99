"""Qualities a node must have or must not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.reasons.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from schemas.outcomes import Reason
    from schemas.requests import Traits


def trait_breaches(present: AbstractSet[str], wanted: Traits) -> list[Reason]:
    """A reason for every required trait that is missing and every forbidden one that is present."""
    missing = sorted(set(wanted.required) - present)
    unwanted = sorted(set(wanted.forbidden) & present)
    return [
        *(refusal("missing_trait", f"the node lacks the required trait {name}", resource=name) for name in missing),
        *(refusal("missing_trait", f"the node has the forbidden trait {name}", resource=name) for name in unwanted),
    ]
