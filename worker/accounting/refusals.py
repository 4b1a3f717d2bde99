"""Building the reasons of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.outcomes import Reason

if TYPE_CHECKING:
    from schemas.outcomes import ReasonCode


def refusal(code: ReasonCode, detail: str, **numbers: object) -> Reason:
    """A reason with its sentence and the numbers behind it, as :class:`schemas.outcomes.Reason` names them."""
    return Reason.model_construct(None, code=code, detail=detail, **numbers)
