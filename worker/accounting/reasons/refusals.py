"""Building the reasons of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

from schemas.outcomes import Reason

if TYPE_CHECKING:
    from schemas.outcomes import ReasonCode


class Numbers(TypedDict, total=False):
    """The fields of a reason besides its code and its sentence."""

    resource: str
    requested: int
    used: int
    capacity: int
    short_by: int
    cells: list[dict[str, object]] | None
    devices: list[dict[str, object]]


def refusal(code: ReasonCode, detail: str, **numbers: Unpack[Numbers]) -> Reason:
    """A reason with its sentence and the numbers behind it, as :class:`schemas.outcomes.Reason` names them."""
    return Reason.model_construct(None, code=code, detail=detail, **numbers)
