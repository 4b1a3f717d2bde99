"""The first step of the path: from a delivery to a command on its lane, or to the dead letters."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from schemas import MAX_BODY_BYTES, MalformedCommandError, parse_command, shard_of
from schemas.routing import command_queue
from worker.engine.ports import NO_REPLY, Reply
from worker.telemetry.logs import log_context
from worker.telemetry.tracing import TRACEPARENT, is_traceparent

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from schemas import Command
    from worker.accounting.rules.lifecycle import Expire
    from worker.accounting.rules.looks import Look
    from worker.engine.dead_letters import DeadLetters
    from worker.engine.lanes import Lanes
    from worker.engine.ports import Delivery, Parked
    from worker.telemetry.tracing import Span, Tracing

AnyCommand: TypeAlias = "Command | Expire | Look"

_MAX_TRACE: Final = 2000
"""Characters of a traceback's end, where the cause stands, that go into a dead letter; its headers hold them whole."""


@dataclass(slots=True)
class Item:
    """A command on its way, and where it came from.

    Exactly one of ``delivery`` and ``parked`` says whom to tell when it is done;
    a command that the worker made itself has neither. ``dead_lettered`` is set once
    the command is safe in the dead letters and only has to be recorded as dead.
    Of one that was delivered before, ``attempts`` is how often other workers began
    and did not finish it, once that is known, and ``counted`` says that this
    one has counted its own attempt, which is not over. ``span`` is there where traces are recorded.
    """

    command: AnyCommand
    fingerprint: UUID
    delivery: Delivery | None = None
    parked: Parked | None = None
    dead_lettered: tuple[str, str] | None = None
    attempts: int | None = None
    counted: bool = False
    reply: Reply = NO_REPLY
    span: Span | None = None


@dataclass(slots=True)
class Refused:
    """A delivery that is no command, with the reason and the fault; ``item`` is there if it could be parsed."""

    delivery: Delivery
    reason: str
    detail: str
    command: UUID | None = None
    node: str | None = None
    kind: str | None = None
    item: Item | None = None


class Intake:
    """The broker's sink: parses each delivery and puts it on its lane, or aside for the dead letters.

    Made before the broker, which needs somewhere to deliver to, and before the
    engine, which needs a broker.
    """

    def __init__(self, lanes: Lanes, shards: int, tracing: Tracing | None = None) -> None:
        self._lanes = lanes
        self._shards = shards
        self._tracing = tracing if tracing is not None and tracing.enabled else None
        self._dead_letters: DeadLetters | None = None
        self._early: list[Refused] = []

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery. Never waits and never raises: what cannot even be taken is put away like any poison."""
        try:
            self._take(delivery)
        except Exception as error:  # noqa: BLE001 - whatever a message makes the code raise is that message's fault
            delivery.headers = {}  # they may be what cannot be read
            self._refuse(Refused(delivery, "poison", trace_of(error)))

    def _take(self, delivery: Delivery) -> None:
        item = receive(delivery, self._shards)
        if isinstance(item, Refused):
            self._refuse(item)
        else:
            if self._tracing is not None:
                _trace(item, self._tracing)
            self._lanes.add(item)

    def _refuse(self, refused: Refused) -> None:
        if self._dead_letters is None:
            self._early.append(refused)
        else:
            self._dead_letters.refuse(refused)

    def dead_letter_with(self, dead_letters: DeadLetters) -> None:
        """Hand over what is refused from now on, and what was before."""
        self._dead_letters = dead_letters
        for refused in self._early:
            dead_letters.refuse(refused)
        self._early.clear()


def _trace(item: Item, tracing: Tracing) -> None:
    """Begin a command's span; its answer continues that."""
    command = item.command
    about = {"nodeledger.command": str(command.id)}
    item.span = tracing.begin(item.reply.traceparent, kind=command.kind, node=command.node, attributes=about)
    item.reply = replace(item.reply, traceparent=item.span.traceparent)


def receive(delivery: Delivery, shards: int) -> Item | Refused:
    """Parse a delivery; a command on another queue than its node's is refused too."""
    if (whole := delivery.whole) is not None:
        detail = f"{whole.size} bytes; at most {MAX_BODY_BYTES} are accepted, the first {len(delivery.body)} are kept"
        return Refused(delivery, "too_large", detail)
    try:
        command = parse_command(delivery.body)
    except MalformedCommandError as fault:
        return Refused(
            delivery=delivery,
            reason=fault.reason,
            detail=fault.detail,
            command=fault.id,
            node=fault.node,
            kind=fault.kind,
        )
    item = Item(command, fingerprint(command), delivery, reply=reply_of(delivery))
    shard = shard_of(command.node, shards)
    if shard != delivery.shard:
        detail = f"node {command.node} belongs to {command_queue(shard)}, not to {command_queue(delivery.shard)}"
        return Refused(
            delivery=delivery,
            reason="misrouted",
            detail=detail,
            command=command.id,
            node=command.node,
            kind=command.kind,
            item=item,
        )
    return item


def reply_of(delivery: Delivery) -> Reply:
    """What the answer to a message carries back."""
    if delivery.reply_to is delivery.correlation_id is None and not delivery.headers:
        return NO_REPLY
    trace = delivery.headers.get(TRACEPARENT)
    return Reply(
        delivery.reply_to, delivery.correlation_id, trace if isinstance(trace, str) and is_traceparent(trace) else None
    )


def unpark(parked: Parked) -> Item:
    """A parked command, back on its way. It was parsed before it was parked."""
    command = parse_command(parked.body)
    return Item(command, fingerprint(command), parked=parked, reply=parked.reply)


def fingerprint(command: AnyCommand) -> UUID:
    """What tells a duplicate from another command with the same id: BLAKE2b-128 of its canonical content."""
    return UUID(bytes=blake2b(command.fingerprint(), digest_size=16).digest())


def about(command: AnyCommand) -> AbstractContextManager[Any]:
    """Within it, lines of the log carry which command, node and instance they are about."""
    return log_context(
        command=command.id, kind=command.kind, node=command.node, instance=getattr(command, "instance", None)
    )


def trace_of(error: Exception) -> str:
    """What a dead letter tells of an error in the code."""
    return "".join(traceback.format_exception(error))[-_MAX_TRACE:]
