"""Building the reasons of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from schemas.outcomes import Reason

if TYPE_CHECKING:
    from schemas.outcomes import ReasonCode


_SIMPLER: Final = (
    "it takes more work than one command may; ask for fewer instances or candidates at once,"
    " fewer guest cells, or device requests with fewer and simpler matches"
)


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


def unexplained(code: ReasonCode, detail: str) -> Reason:
    """A refusal that is certain, where what is missing takes more work to find out than one command may."""
    return refusal(code, f"{detail}; how much is missing takes more work to find out than one command may")


def too_complex(detail: str) -> Reason:
    """Whether there is room takes more work to find out than one command may."""
    return refusal("too_complex", f"{detail}: {_SIMPLER}")
