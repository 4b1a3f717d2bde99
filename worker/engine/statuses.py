"""The states a command can be in, and who may move it on; every status that is written is asked about here first.

A command has as many messages as its sender, the broker and replays make of
it, and while it is parked one row that waits. They are not the command: what
cannot move it, as this table has it, comes to its own end and leaves the
command as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.outcomes import Status

Mover: TypeAlias = Literal["message", "parked row"]

_MOVERS: Final[Mapping[Status | None, frozenset[Mover]]] = {
    None: frozenset({"message", "parked row"}),
    "dead": frozenset({"message"}),  # a replay, or a copy that was still on its way
    "parked": frozenset({"parked row"}),
    "applied": frozenset(),
    "rejected": frozenset(),
}

FINAL: Final[frozenset[Status]] = frozenset(status for status, movers in _MOVERS.items() if status and not movers)


def may_move(status: Status | None, mover: Mover) -> bool:
    """Whether a command in this state (``None``: not seen before) may be given another by a message, or its row."""
    return mover in _MOVERS[status]
