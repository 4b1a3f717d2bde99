"""Building the reasons of a refusal, in a bounded number: the first in full, the others counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from schemas.outcomes import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.outcomes import ReasonCode

FULL_BYTES: Final = 256 * 1024
"""Reasons are listed in full up to this size: hundreds of nodes with all that they lack, or one with long names."""

MOST_BYTES: Final = 512 * 1024
"""Beyond this size they are only counted; the other half of an answer's 1 MiB is left for everything else in it."""

_SHORT_CHARACTERS: Final = 320
"""Of a sentence that is shortened: a resource's name may have 255."""

_BASE_BYTES: Final = 200
_CELL_BYTES: Final = 400
_DEVICE_BYTES: Final = 400


_SIMPLER: Final = (
    "it takes more work than one command may; ask for fewer instances or candidates at once,"
    " fewer guest cells, or device requests with fewer and simpler matches"
)


class Numbers(TypedDict, total=False):
    """The fields of a reason besides its code and its sentence."""

    node: str | None
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


def more(code: ReasonCode, count: int, node: str | None = None) -> Reason:
    """What stands for reasons that are not listed."""
    where = f" of {node}" if node is not None else ""
    return refusal(code, f"{count} more reasons{where} of this code, not listed to keep the answer short", node=node)


class Refusals:
    """Reasons of one sort against one node: the first ``most`` of them, and how many more there are of each code."""

    __slots__ = ("_more", "_most", "listed")

    def __init__(self, most: int) -> None:
        self.listed: list[Reason] = []
        self._most = most
        self._more: dict[ReasonCode, int] = {}

    def room(self, code: ReasonCode) -> bool:
        """Whether one more is to be listed; counts it if not, so that it need not be built."""
        if len(self.listed) < self._most:
            return True
        self._more[code] = self._more.get(code, 0) + 1
        return False

    def all(self) -> list[Reason]:
        """Those listed, and one for all others of a code."""
        return [*self.listed, *(more(code, count) for code, count in self._more.items())]


class Collected:
    """Reasons of several nodes or instances, in a bounded size.

    Beyond :data:`FULL_BYTES` each keeps its first reason without what it says
    of single cells and devices, and the number of the others; beyond
    :data:`MOST_BYTES` they are counted together. No code gets lost.
    """

    def __init__(self) -> None:
        self._listed: list[Reason] = []
        self._bytes = 0
        self._more: dict[ReasonCode, int] = {}

    def add(self, reasons: Sequence[Reason]) -> None:
        """Take the reasons of one node or instance."""
        if not self._take(reasons, FULL_BYTES) and not self._take(_shortened(reasons), MOST_BYTES):
            for reason in reasons:
                self._more[reason.code] = self._more.get(reason.code, 0) + 1

    def _take(self, reasons: Sequence[Reason], most: int) -> bool:
        size = self._bytes + sum(map(_size, reasons))
        if size > most:
            return False
        self._listed += reasons
        self._bytes = size
        return True

    def all(self) -> tuple[Reason, ...]:
        """All of them, as an answer tells them."""
        return (*self._listed, *(more(code, count) for code, count in self._more.items()))


def collected(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """The reasons of one node or instance in a bounded size."""
    alone = Collected()
    alone.add(reasons)
    return alone.all()


def _size(reason: Reason) -> int:
    """About how many bytes a reason takes; rather too many than too few."""
    given = reason.__dict__
    size = _BASE_BYTES + len(reason.detail) + len(given.get("node") or "") + len(given.get("resource") or "")
    return size + _CELL_BYTES * len(given.get("cells") or ()) + _DEVICE_BYTES * len(given.get("devices") or ())


def _shortened(reasons: Sequence[Reason]) -> list[Reason]:
    if not reasons:
        return []
    first, *rest = reasons
    node = first.node
    short = first.model_copy(update={"detail": first.detail[:_SHORT_CHARACTERS], "cells": None, "devices": None})
    return [short, *(more(code, count, node) for code, count in Counter(reason.code for reason in rest).items())]
