"""Where messages go: the names of exchanges and queues, and the shard of a node."""

from __future__ import annotations

from typing import Final
from zlib import crc32

COMMAND_EXCHANGE: Final = "nodeledger.commands"
OUTCOME_EXCHANGE: Final = "nodeledger.outcomes"
DEAD_EXCHANGE: Final = "nodeledger.dead"
DEAD_QUEUE: Final = "nodeledger.dead"
DEFAULT_SHARDS: Final = 16
MAX_SHARDS: Final = 100

REASON_HEADER: Final = "x-nodeledger-reason"
DETAIL_HEADER: Final = "x-nodeledger-detail"


def shard_of(node: str, shards: int = DEFAULT_SHARDS) -> int:
    """The shard of a node: CRC-32 (as in zlib) of its UTF-8 name, modulo the number of shards."""
    return crc32(node.encode()) % shards


def command_key(shard: int) -> str:
    """The binding and routing key of a shard: two digits."""
    return f"{shard:02d}"


def command_queue(shard: int) -> str:
    """The queue of a shard."""
    return f"{COMMAND_EXCHANGE}.{shard:02d}"


def outcome_key(kind: str, status: str, node: str) -> str:
    """The routing key of an outcome: ``<kind>.<status>.<node>``, dots in the node's name as dashes."""
    return f"{kind}.{status}.{node.replace('.', '-')}"
