"""Many messages through a bounded window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Final

from schemas.asking import each
from schemas.client.messages import Message, Pending
from schemas.client.post import Post
from schemas.outcomes import Outcome
from schemas.stopping import ended

WINDOW: Final = 512
"""How many may be under way at once unless told otherwise: more does not make one worker faster."""
_END_SECONDS: Final = 5.0


class Many:
    """One run through the window: so many at most are under way, or not taken by who reads, the parked apart."""

    def __init__(
        self, post: Post, window: int, seconds: float, *, answered: bool, on_parked: Callable[[Outcome], object] | None
    ) -> None:
        self._post = post
        self._room = asyncio.Semaphore(window)
        self._seconds = seconds
        self._answered = answered
        self._on_parked = on_parked
        self._over: asyncio.Queue[tuple[Pending, Callable[[], None]] | None] = asyncio.Queue()
        self._open: set[Pending] = set()
        self._fed = False

    async def run(self, messages: Iterable[Message] | AsyncIterable[Message]) -> AsyncGenerator[Pending, None]:
        """Each message once it is confirmed, or answered, or has failed; posted in order."""
        feeding = asyncio.create_task(self._feed(messages))
        try:
            while not (self._fed and not self._open and self._over.empty()):
                found = await self._over.get()
                if found is None:
                    await feeding
                else:
                    pending, leave = found
                    leave()
                    yield pending
        finally:
            await ended([feeding], _END_SECONDS)
            for pending in self._open:
                pending.over.cancel()

    async def _feed(self, messages: Iterable[Message] | AsyncIterable[Message]) -> None:
        try:
            async with aclosing(each(messages)) as given:
                async for message in given:
                    await self._room.acquire()
                    await self._alone(message)
                    self._start(message)
        finally:
            self._fed = True
            self._over.put_nowait(None)

    async def _alone(self, message: Message) -> None:
        """Wait for another message of the same id, so that it is clear which one an answer is for."""
        while self._answered and (other := self._post.awaited(message.id)) is not None:
            await asyncio.wait((other.over,))

    def _start(self, message: Message) -> None:
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._room.release()

        def parked(outcome: Outcome) -> None:
            leave()
            if self._on_parked is not None:
                self._on_parked(outcome)

        def over(_future: object) -> None:
            self._open.discard(pending)
            self._over.put_nowait((pending, leave))

        answered = self._answered and message.id is not None  # no answer could be told from another
        pending = self._post.post(message, self._seconds, answered=answered, on_parked=parked)
        self._open.add(pending)
        pending.over.add_done_callback(over)
