"""A producer as a process of its own: sends a workload through the client, and keeps a journal of what was answered.

Ended at any moment and started again, it sends what its journal does not have:
the same commands, as each one follows from its number alone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from schemas import Command
from schemas.asking import command_of
from schemas.client import Client

IDS: Final = UUID("0d0f6b2e-6a35-4b0e-9a55-7d2f0c0f2b11")
SECONDS: Final = 600.0
_RESIDENT: Final = "resident"


def command(number: int, nodes: int) -> Command:
    """The command of a number: each node's are claim, delete, claim, … of one instance after another."""
    turn, at = divmod(number, nodes)
    instance = uuid5(IDS, f"instance {at} {turn // 2}")
    node, id_ = f"cn-{at}", uuid5(IDS, str(number))
    if turn % 2:
        return command_of("delete", node, id=id_, instance=instance)
    return command_of(
        "claim", node, id=id_, instance=instance, project="demo", resources={"vcpus": 1, "memory_mib": 64}
    )


def answered(journal: Path) -> dict[UUID, tuple[str, int]]:
    """The status and generation of each command that was answered, as far as whole lines tell."""
    text = journal.read_text() if journal.exists() else ""
    lines = [line.split() for line in text[: text.rfind("\n") + 1].splitlines() if line.count(" ") == 2]
    return {UUID(id_): (status, int(generation)) for id_, status, generation in lines if id_ != _RESIDENT}


def resident(journal: Path) -> list[int]:
    """The producer's memory in KiB, as it went on."""
    lines = [line.split() for line in journal.read_text().splitlines() if line]
    return [int(line[1]) for line in lines if line[0] == _RESIDENT]


async def produce(url: str, journal: Path, count: int, nodes: int, per_second: float) -> None:
    """Send what is not answered yet, so fast at most, and write down each answer as it comes."""
    done = answered(journal)

    async def left() -> AsyncIterator[Command]:
        began, sent = time.monotonic(), 0
        for number in range(count):
            if uuid5(IDS, str(number)) not in done:
                yield command(number, nodes)
                sent += 1
                await asyncio.sleep(max(0.0, began + sent / per_second - time.monotonic()))

    seen = 0
    with journal.open("a", buffering=1) as written:
        written.write("\n")  # the line that was being written when the last process ended is none
        async with Client(url, seconds=SECONDS, attempts=None) as client:
            async for outcome in client.send_many(left()):
                written.write(f"{outcome.command} {outcome.status} {outcome.generation}\n")
                seen += 1
                if seen % 1000 == 0:
                    written.write(f"{_RESIDENT} {_resident_kib()}\n")


def _resident_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])


def main() -> int:
    """Send it all."""
    parser = argparse.ArgumentParser(prog="python -m tests.driver.producer", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("journal", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("nodes", type=int)
    parser.add_argument("per_second", type=float)
    given = parser.parse_args()
    for library in ("aio_pika", "aiormq"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # a broker that goes away is the point
    asyncio.run(produce(given.url, given.journal, given.count, given.nodes, given.per_second))
    return 0


if __name__ == "__main__":
    sys.exit(main())
