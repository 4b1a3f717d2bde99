"""What is under way: a command as bytes, and what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from schemas.commands import Command
from schemas.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Message:
    """A body and how it is published; ``id`` is ``None`` only where none can be read from it.

    ``reply_to`` and ``correlation_id`` are of a message that is sent for
    somebody else, who gets the answer; ``headers`` go with it.
    """

    body: bytes
    node: str
    kind: str
    id: UUID | None
    headers: Mapping[str, Any] | None = None
    reply_to: str | None = None
    correlation_id: str | None = None

    @classmethod
    def of(cls, command: Command) -> Message:
        """A command's message. What has its default is left out, so that older workers read it too."""
        body = command.__pydantic_serializer__.to_json(command, exclude_defaults=True)
        return cls(body, command.node, command.kind, command.id)


@dataclass(frozen=True, slots=True)
class Answer:
    """A final outcome, or that a command is dead, and its bytes as they came."""

    outcome: Outcome
    body: bytes


@dataclass(slots=True, eq=False)
class Pending:
    """A message that is not confirmed, or not answered yet; ``answer`` is there if one is awaited."""

    message: Message
    confirmed: asyncio.Future[None]
    answer: asyncio.Future[Answer] | None
    on_parked: Callable[[Outcome], object] | None = None
    parked: Outcome | None = None
    sent: int = 0
    due: float = 0.0
    """When it is sent again, unless what is missing came; by the loop's clock."""
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None

    @property
    def over(self) -> asyncio.Future[Any]:
        """Done once nothing more is awaited."""
        return self.confirmed if self.answer is None else self.answer

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        for future in (self.confirmed, self.answer):
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # whoever waited may have left

    def say_parked(self, outcome: Outcome) -> None:
        """Tell, once, that it waits for its hypervisor."""
        first, self.parked = self.parked is None, outcome
        if first and self.on_parked is not None:
            self.on_parked(outcome)
