"""Commands that wait, as the columns of their rows; see :mod:`worker.ledger.rows`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from worker.engine.ports import Parked


class ParkedCommands(NamedTuple):
    """Rows of ``parked_command``."""

    node: Sequence[str]
    command: Sequence[UUID]
    body: Sequence[bytes]
    reply_to: Sequence[str | None]
    correlation_id: Sequence[str | None]
    traceparent: Sequence[str | None]
    user_id: Sequence[str | None]
    received_at: Sequence[datetime]
    blocking: Sequence[bool]
    detail: Sequence[str]
    parked_at: Sequence[datetime]


def parked_columns(parked: Sequence[Parked], now: datetime) -> ParkedCommands:
    """Commands that begin to wait now, or go on waiting since they began."""
    replies = [one.reply for one in parked]
    return ParkedCommands(
        node=[one.node for one in parked],
        command=[one.command for one in parked],
        body=[one.body for one in parked],
        reply_to=[reply.to for reply in replies],
        correlation_id=[reply.correlation_id for reply in replies],
        traceparent=[reply.traceparent for reply in replies],
        user_id=[one.user_id for one in parked],
        received_at=[one.received_at for one in parked],
        blocking=[one.blocking for one in parked],
        detail=[one.detail for one in parked],
        parked_at=[one.parked_at or now for one in parked],
    )
