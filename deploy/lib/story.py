"""What quickstart shows: a pipeline registers two nodes and goes through an instance's life, each step in a line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg

from schemas import DEFAULT_SHARDS, shard_of
from schemas.client import Client, ClientError, Message, command_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from schemas import Command, Outcome, Status

PROGRAM = Path(sys.executable).with_name("nodeledger")
PROJECT = "quickstart"
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.05
FIRST, SECOND = "quick-1", "quick-2"

FIRST_POLICY = {"shared_cpus": "0-7", "dedicated_cpus": "8-15", "ratios": {"vcpus": "4.0"}}
WEB = {"vcpus": 4, "memory_mib": 512, "disk": {"root_gib": 20}}
LARGER_WEB = {"vcpus": 8, "memory_mib": 1024, "disk": {"root_gib": 20}}
PINNED = {"vcpus": 2, "memory_mib": 256, "disk": {"root_gib": 10}}
LARGER_PINNED = {"vcpus": 4, "memory_mib": 256, "disk": {"root_gib": 10}}
ON_VOLUME = {"vcpus": 1, "memory_mib": 128, "disk": {"root_gib": 10, "boot_from_volume": True}}
HUGE = {"vcpus": 500, "memory_mib": 1_048_576, "disk": {"root_gib": 5000}}
DEDICATED = {"cpu_policy": "dedicated"}

LEFTOVERS = """
SELECT DISTINCT ON (instance) instance, node FROM nodeledger.allocation_view
 WHERE project = $1 ORDER BY instance, role
"""
LETTER = "SELECT id, reason, detail FROM nodeledger.dead_letter_view WHERE command = $1 AND state = 'open'"
APPLIED = "SELECT status FROM nodeledger.outcome_view WHERE command = $1 AND status = 'applied'"


class StoryError(Exception):
    """A step did not go as it should; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Story:
    """The steps, in their order; each raises StoryError where the ledger does not do as it should."""

    ledger: Client
    database: asyncpg.Connection
    second_hypervisor: str
    web: UUID
    pinned: UUID
    on_volume: UUID

    async def tell(self) -> None:
        """Go through all of it."""
        await self.register()
        await self.clear()
        await self.claim()
        await self.resize()
        await self.refuse()
        await self.delete()
        await self.mislay()

    async def register(self) -> None:
        """Two nodes, each observed through libvirt."""
        heading("Registering two nodes, each read through a real libvirt connection")
        first = command_of("node.put", FIRST, hypervisor="test:///default", policy=FIRST_POLICY)
        await self._step(f"{FIRST} at test:///default", first)
        second = command_of("node.put", SECOND, hypervisor=self.second_hypervisor)
        await self._step(f"{SECOND} at {self.second_hypervisor}", second)

    async def clear(self) -> None:
        """What an earlier run has left claimed."""
        found = await self.database.fetch(LEFTOVERS, PROJECT)
        if found:
            heading("Deleting what the last run left claimed")
        for row in found:
            await self._step(f"delete {row['instance']}", command_of("delete", row["node"], instance=row["instance"]))

    async def claim(self) -> None:
        """Three claims, and one of them once more."""
        heading("Claims")
        web = self._about("claim", FIRST, self.web, project=PROJECT, resources=WEB)
        before = await self._step("claim 4 vCPUs, 512 MiB, 20 GiB", web)
        pinned = self._about("claim", FIRST, self.pinned, project=PROJECT, resources=PINNED, topology=DEDICATED)
        outcome = await self._step("claim 2 dedicated vCPUs, 256 MiB, 10 GiB", pinned)
        say(f"    pinned to the host's CPUs {pins(outcome)}")
        on_volume = self._about("claim", SECOND, self.on_volume, project=PROJECT, resources=ON_VOLUME)
        await self._step("claim 1 vCPU, 128 MiB, its disk on a volume", on_volume)
        again = await self._step("the first claim once more, as after a producer's crash", web)
        if again != before:
            raise StoryError("the same command was answered differently")
        say("    the stored answer: nothing was charged twice")

    async def resize(self) -> None:
        """A move that is confirmed and one that is undone."""
        heading("A resize confirmed, and one reverted")
        await self._step("resize to 8 vCPUs, 1024 MiB", self._about("resize", FIRST, self.web, resources=LARGER_WEB))
        await self._step("confirm", self._about("confirm", FIRST, self.web))
        larger = self._about("resize", FIRST, self.pinned, resources=LARGER_PINNED, topology=DEDICATED)
        outcome = await self._step("resize the pinned instance to 4 vCPUs", larger)
        say(f"    pinned to the host's CPUs {pins(outcome)}")
        await self._step("revert", self._about("revert", FIRST, self.pinned))

    async def refuse(self) -> None:
        """A claim that fits in no dimension."""
        heading("A claim too large in three ways")
        huge = self._about("claim", FIRST, uuid4(), project=PROJECT, resources=HUGE)
        outcome = await self._step("claim 500 vCPUs, 1 TiB, 5000 GiB", huge, "rejected")
        short = [reason for reason in outcome.reasons if reason.code == "insufficient"]
        for reason in short:
            say(
                f"    {reason.resource}: {reason.requested} requested, {reason.used} of {reason.capacity} used, "
                f"short by {reason.short_by}"
            )
        if sorted(str(reason.resource) for reason in short) != ["disk_mib", "memory_mib", "vcpus"]:
            raise StoryError("the refusal does not name vCPUs, memory and disk")

    async def delete(self) -> None:
        """Deletes, each verified with the hypervisor first."""
        heading("Deletes, once the hypervisor says that there is no such domain any more")
        await self._step("delete the pinned instance", self._about("delete", FIRST, self.pinned))
        await self._step("delete the one on a volume", self._about("delete", SECOND, self.on_volume))

    async def mislay(self) -> None:
        """A message on the wrong queue: kept with its reason, and sent again."""
        heading("A claim on another node's queue: a dead letter, and its replay")
        lost = self._about("claim", SECOND, uuid4(), project=PROJECT, resources=ON_VOLUME)
        async with Client(shards=misled(SECOND)) as astray:
            await astray.publish([Message.of(lost)])
        letter = await until(lambda: self.database.fetchrow(LETTER, lost.id), "dead letter")
        say(f"  dead letter {letter['id']}, {letter['reason']}: {letter['detail']}")
        command("dead", "replay", "--dry-run", str(letter["id"]))
        command("dead", "replay", str(letter["id"]))
        await until(lambda: self.database.fetchrow(APPLIED, lost.id), "effect of the replay")
        say("  applied")

    @staticmethod
    def _about(kind: str, node: str, instance: UUID, **fields: object) -> Command:
        return command_of(kind, node, instance=instance, **fields)

    async def _step(self, what: str, command: Command, expected: Status = "applied") -> Outcome:
        """Ask, and say in a line what came of it."""
        try:
            outcome = await self.ledger.send(command, seconds=PATIENCE_SECONDS, on_parked=told)
        except ClientError as error:
            raise StoryError(f"{what}: {error}") from None
        if outcome.status != expected:
            why = "; ".join(reason.detail for reason in outcome.reasons)
            raise StoryError(f"{what}: {outcome.status}, where it should be {expected}. {why}".rstrip())
        say(f"  {what}: {outcome.status}; {used(outcome)}")
        return outcome


def misled(node: str) -> int:
    """A number of shards that is not the installation's, and by which the node is on another one."""
    wrong = (shards for shards in range(1, DEFAULT_SHARDS) if shard_of(node, shards) != shard_of(node))
    return next(wrong)


async def until(look: Callable[[], Awaitable[asyncpg.Record | None]], what: str) -> asyncpg.Record:
    """Look into the database until there is what should be; `what` names it."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := await look()) is None:  # noqa: ASYNC110 - the other side is another process
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise StoryError(f"no {what} within {PATIENCE_SECONDS:g} s") from None
    return found


def used(outcome: Outcome) -> str:
    """What is used of the node now, without resources that it does not have."""
    amounts = (f"{usage.used}/{usage.capacity} {name}" for name, usage in outcome.usage.items() if usage.capacity)
    return f"{outcome.node} has {', '.join(amounts)}"


def pins(outcome: Outcome) -> str:
    """The host's CPUs of every pinned vCPU; raises StoryError if there is none."""
    cells = outcome.assignment.cells if outcome.assignment else []
    chosen = sorted(cpu for cell in cells for cpu in cell.pins.values())
    if not chosen:
        raise StoryError("a dedicated instance was given no CPUs")
    return ", ".join(map(str, chosen))


def heading(text: str) -> None:
    """Begin a part of the story."""
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def say(text: str) -> None:
    """Print a line at once, so that what the programs started from here print comes after it."""
    print(text, flush=True)


def command(*arguments: str) -> None:
    """Run the product's command line as an operator would, and show what was typed."""
    say(f"  $ nodeledger {' '.join(arguments)}")
    if subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise StoryError(f"nodeledger {' '.join(arguments)} failed")


def told(outcome: Outcome) -> None:
    """Say that a command waits."""
    say(f"  {outcome.kind} on {outcome.node} waits for its hypervisor")


async def run(second_hypervisor: str) -> None:
    """Tell the story with the servers that the environment names."""
    database = await asyncpg.connect(os.environ["NODELEDGER_DATABASE_READER_URL"])
    try:
        async with Client() as ledger:
            await Story(ledger, database, second_hypervisor, uuid4(), uuid4(), uuid4()).tell()
    finally:
        await database.close()


def main() -> int:
    """Tell it; the reason on standard error and status 1 where a step fails."""
    try:
        asyncio.run(run(sys.argv[1]))
    except (StoryError, ClientError) as error:
        print(f"This step failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
