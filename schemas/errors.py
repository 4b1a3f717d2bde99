"""The root of every exception of the product, and what producers meet; the tree is in ``worker.errors``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from schemas.outcomes import Outcome

Fault = Literal["malformed", "too_large", "unknown_kind", "unsupported_version"]


class NodeledgerError(Exception):
    """Anything that this product raises of its own."""


class MalformedCommandError(NodeledgerError, ValueError):
    """A message that is no command of this version of the contract.

    ``reason`` is the dead letter's reason and ``detail`` names the field and
    the fault, without the value. ``id``, ``node`` and ``kind`` are what could
    still be read.
    """

    def __init__(
        self, reason: Fault, detail: str, *, id: UUID | None = None, node: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(detail)
        self.reason: Fault = reason
        self.detail = detail
        self.id = id
        self.node = node
        self.kind = kind


class ClientError(NodeledgerError):
    """A command was not answered as its sender wanted it; sending the same command again is always safe."""


class RejectedError(ClientError):
    """A command was rejected, or is in the dead letters; ``outcome`` holds every reason."""

    def __init__(self, outcome: Outcome) -> None:
        why = "; ".join(reason.detail for reason in outcome.reasons)
        if outcome.dead_letter is not None:
            why = f"{outcome.dead_letter.reason}: {outcome.dead_letter.detail}"
        super().__init__(f"{outcome.kind} on {outcome.node} is {outcome.status}: {why}")
        self.outcome = outcome


class NoAnswerError(ClientError, TimeoutError):
    """No final outcome came in time.

    ``commands`` are the ids; each may be applied already, or later. ``parked``
    are the outcomes of those that wait for a hypervisor.
    """

    def __init__(self, commands: Sequence[UUID], why: str, parked: Sequence[Outcome] = ()) -> None:
        first = ", ".join(map(str, commands[:3])) + (", …" if len(commands) > 3 else "")  # noqa: PLR2004 - enough to see
        waiting = f", {len(parked)} of them parked" if parked else ""
        text = f"no final outcome of {len(commands)} commands ({first}){waiting}: {why}"
        super().__init__(f"{text}; sending the same ids again is safe and gives their outcomes")
        self.commands = tuple(commands)
        self.why = why
        self.parked = tuple(parked)


class UnreadableAnswerError(ClientError):
    """An answer came that this release cannot read; ``body`` is what came. The worker may be of a later one."""

    def __init__(self, body: bytes) -> None:
        super().__init__("an answer came that this release of nodeledger cannot read: install the worker's release")
        self.body = body


class BrokerAwayError(ClientError):
    """The broker cannot be reached, does not let us in, or did not confirm in time."""


class UnroutableError(ClientError):
    """The broker does not take a command at all: the text says what to do."""
