"""The dead letter of what cannot be applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.engine.envelope import Envelope
from worker.engine.intake import reply_of
from worker.engine.ports import DeadLetter, senders_line

if TYPE_CHECKING:
    from worker.engine.intake import Item, Refused


def letter_of_refused(refused: Refused) -> DeadLetter:
    """The letter of a delivery that is no command, or not one for its queue."""
    delivery = refused.delivery
    envelope = Envelope(senders_line(delivery.user_id, delivery.headers), reply_of(delivery))
    return DeadLetter(
        body=delivery.body,
        reason=refused.reason,
        detail=refused.detail,
        command=refused.command,
        node=refused.node,
        kind=refused.kind,
        headers=envelope.on_letter(delivery.headers),
        whole=delivery.whole,
    )


def letter_of(item: Item, reason: str, detail: str) -> DeadLetter | None:
    """The letter of a command that was put away; of one that the worker made itself there is none."""
    source = item.delivery or item.parked
    if source is None:
        return None
    command = item.command
    return DeadLetter(
        body=source.body,
        reason=reason,
        detail=detail,
        command=command.id,
        node=command.node,
        kind=command.kind,
        headers=Envelope.of_item(item).on_letter(item.delivery.headers if item.delivery is not None else {}),
    )
