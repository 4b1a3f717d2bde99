"""Which dead letters are stored next, and together: the order of one that fails, without any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.broker.wire import Message

BATCH_LETTERS: Final = 50
# Of one statement: far below what Postgres refuses, and a worker holds little more than this twice.
BATCH_BYTES: Final = 8 * 1024 * 1024


BACKOFF: Final = Backoff(0.1, 10.0)
# A database that is away fails every letter; one letter that seems to be why is left for later only after these.
_PATIENCE: Final = 5


@dataclass(slots=True)
class _Aside:
    """A letter that failed alone, how often, and when it is tried again, alone, in seconds of the loop's time."""

    message: Message
    failures: int = 0
    due: float = 0.0


class Backlog:
    """Letters that wait, in order, and those set aside.

    A batch that failed comes again by halves. A letter that failed alone is
    set aside, so that those behind it are tried: at once if the archive
    refused it, and after a few attempts if the archive was away.
    """

    def __init__(self, letters: int = BATCH_LETTERS, size: int = BATCH_BYTES) -> None:
        self._most = self._limit = letters
        self._size = size
        self._waiting: list[Message] = []
        self._aside: dict[int, _Aside] = {}
        self._away = 0

    @property
    def aside(self) -> int:
        """How many letters are set aside."""
        return len(self._aside)

    @property
    def due(self) -> float | None:
        """When the next of those set aside is tried again."""
        return min((aside.due for aside in self._aside.values()), default=None)

    def add(self, message: Message) -> None:
        """Put a letter behind all others."""
        self._waiting.append(message)

    def take(self, now: float) -> list[Message]:
        """The letters to store now, which stay here until they are: one set aside that is due, or the first few."""
        for aside in self._aside.values():
            if aside.due <= now:
                return [aside.message]
        batch: list[Message] = []
        size = 0
        for message in self._waiting[: self._limit]:
            size += message.weight
            if batch and size > self._size:
                break
            batch.append(message)
        return batch

    def stored(self, batch: Sequence[Message]) -> None:
        """These are safe."""
        self._away = 0
        self._limit = min(self._most, 2 * self._limit)
        if self._aside.pop(batch[0].tag, None) is None:
            del self._waiting[: len(batch)]

    def failed(self, batch: Sequence[Message], now: float, *, away: bool) -> bool:
        """These could not be stored, since the archive is ``away`` or refused one of them; whether to wait a little."""
        message = batch[0]
        if len(batch) > 1:
            self._limit = len(batch) // 2
            return False
        if message.tag not in self._aside:
            self._away += away
            if away and self._away < _PATIENCE:
                return True
            self._away = 0
            self._aside[message.tag] = _Aside(message)
            del self._waiting[0]
        aside = self._aside[message.tag]
        aside.failures += 1
        aside.due = now + BACKOFF.seconds(aside.failures)
        return False
