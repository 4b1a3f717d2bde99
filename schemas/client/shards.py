"""How many shards an installation has, learned from its broker.

The command queues are numbered without a gap, so that looking whether two of
them exist, with a passive declaration, mostly tells.
"""

from __future__ import annotations

from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from schemas.client.link import Link, asked
from schemas.errors import UnroutableError
from schemas.routing import DEFAULT_SHARDS, MAX_SHARDS, command_queue


async def learned(link: Link, guess: int = DEFAULT_SHARDS) -> int:
    """The number of command queues; ``guess`` is looked at first.

    Raises:
        UnroutableError: there is none, or this user may not see them.
    """
    fewest, most = 0, MAX_SHARDS  # at least the former, at most the latter
    looks = [guess, guess - 1]
    while fewest < most:
        number = looks.pop(0) if looks else (fewest + most) // 2
        if not fewest <= number < most:
            continue
        if await _exists(link, number):
            fewest = number + 1
        else:
            most = number
    if not fewest:
        raise UnroutableError("there are no command queues on this broker: run `nodeledger topology apply`")
    return fewest


async def _exists(link: Link, shard: int) -> bool:
    channel = await link.scratch_channel()
    try:
        await asked(channel.declare_queue(command_queue(shard), passive=True))
    except ChannelNotFoundEntity:
        return False
    except ChannelAccessRefused:
        text = "this broker user may not see the command queues, so that the number of shards has to be given"
        raise UnroutableError(f"{text}: Client(shards=…), or NODELEDGER_SHARDS") from None
    await asked(channel.close())
    return True
