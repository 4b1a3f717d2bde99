"""Publishing by the thousand, with the product's own publisher: confirmed, in order, in large writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final

from schemas.routing import COMMAND_EXCHANGE, command_key, shard_of
from worker.broker.link import Link
from worker.broker.publisher import Publisher
from worker.broker.session import BrokerOptions, Session
from worker.engine.ports import Outgoing

_CONNECT_SECONDS: Final = 15.0
_CONFIRM_SECONDS: Final = 120.0
_CHUNK: Final = 5000


@asynccontextmanager
async def publisher(url: str) -> AsyncIterator[Publisher]:
    """A publisher on a connection of its own."""

    made: Publisher | None = None

    async def attach(link: Link) -> None:
        if made is not None:
            await made.attach(link)

    session = Session(BrokerOptions((url,), name="driver"), "publish", on_ready=attach, on_lost=lambda _link: None)
    made = Publisher(session, _CONFIRM_SECONDS)
    session.start()
    try:
        await session.ready(_CONNECT_SECONDS)
        yield made
    finally:
        await session.close()


async def publish_all(url: str, commands: Iterable[dict[str, Any]], *, astray: bool = False) -> int:
    """Publish commands, made as they are needed, and say how many; ``astray`` sends them to the next shard."""
    count, rest = 0, iter(commands)
    async with publisher(url) as through:
        while chunk := [_outgoing(command, astray=astray) for command in islice(rest, _CHUNK)]:
            await through.publish(chunk)
            count += len(chunk)
    return count


def _outgoing(command: dict[str, Any], *, astray: bool) -> Outgoing:
    body = json.dumps(command, separators=(",", ":")).encode()
    shard = (shard_of(command["node"]) + astray) % 16
    return Outgoing(COMMAND_EXCHANGE, command_key(shard), body, message_id=command["id"])
