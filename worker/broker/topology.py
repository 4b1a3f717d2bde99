"""The exchanges and queues: declaring them, and saying what is wrong with those that are there.

The command and dead-letter queues are quorum queues, so that a confirmed
message survives the loss of a broker node. A command queue has a single
active consumer, which is what keeps a shard's order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from schemas.routing import (
    COMMAND_EXCHANGE,
    DEAD_EXCHANGE,
    DEAD_QUEUE,
    MAX_SHARDS,
    OUTCOME_EXCHANGE,
    command_key,
    command_queue,
)

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

    from worker.broker.session import Link

LIMITS_DELIVERIES_SINCE: Final = (4, 0)
# RabbitMQ 4 drops a message after twenty deliveries unless told otherwise, and fifty honest crashes are not poison.
NEVER: Final = 1_000_000_000

APPLY: Final = "run `nodeledger topology apply` as a broker user with the `configure` permission"

Step = Callable[["AbstractChannel", bool], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the broker's topology that is not as it must be, and what to do about it."""

    subject: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}; {self.remedy}"


class TopologyError(Exception):
    """The exchanges and queues are not as they must be; ``findings`` says what to mend."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


def queue_arguments(server_version: tuple[int, ...], *, commands: bool) -> dict[str, str | int | bool]:
    """The arguments a queue is declared with on this version of the broker."""
    arguments: dict[str, str | int | bool] = {"x-queue-type": "quorum"}
    if commands:
        arguments["x-single-active-consumer"] = True
    if server_version >= LIMITS_DELIVERIES_SINCE:
        arguments["x-delivery-limit"] = NEVER
    return arguments


async def apply(link: Link, shards: int) -> list[Finding]:
    """Declare and bind everything; running it again changes nothing.

    What this user may not declare counts as right if it exists.
    """
    findings = []
    for subject, step in _steps(link.server_version, shards):
        problem = await _try(link, step, passive=False)
        if isinstance(problem, ChannelAccessRefused):
            problem = await _try(link, step, passive=True)
        if problem is not None:
            findings.append(_explain(subject, problem))
    if findings:
        return findings
    return await _bind(link, shards)


async def check(link: Link, shards: int) -> list[Finding]:
    """Look, without changing anything, whether everything exists and is of the right kind.

    Bindings cannot be seen over AMQP. What exists with other properties is
    only noticed if this user may declare it.
    """
    findings = []
    for subject, step in _steps(link.server_version, shards):
        problem = await _try(link, step, passive=True)
        if problem is None:
            problem = await _try(link, step, passive=False)
        if problem is not None and not isinstance(problem, ChannelAccessRefused):
            findings.append(_explain(subject, problem))
    return findings + await _stray_queue(link, shards)


async def ensure(link: Link, shards: int, *, declare: bool) -> None:
    """What a worker does on each connection: declare, or only look.

    Raises:
        TopologyError: something is missing or wrong.
    """
    findings = await (apply(link, shards) if declare else check(link, shards))
    if findings:
        raise TopologyError(findings)


def _steps(version: tuple[int, ...], shards: int) -> list[tuple[str, Step]]:
    steps = [
        (f"exchange {name}", _exchange(name, kind))
        for name, kind in ((COMMAND_EXCHANGE, "direct"), (OUTCOME_EXCHANGE, "topic"), (DEAD_EXCHANGE, "fanout"))
    ]
    queues = [(DEAD_QUEUE, False)] + [(command_queue(shard), True) for shard in range(shards)]
    return steps + [(f"queue {name}", _queue(name, queue_arguments(version, commands=own))) for name, own in queues]


def _exchange(name: str, kind: str) -> Step:
    return lambda channel, passive: channel.declare_exchange(name, kind, durable=True, passive=passive)


def _queue(name: str, arguments: dict[str, str | int | bool]) -> Step:
    return lambda channel, passive: channel.declare_queue(
        name, durable=True, passive=passive, arguments=dict(arguments)
    )


async def _try(link: Link, step: Step, *, passive: bool) -> Exception | None:
    """Run a step on a channel of its own, since a refusal closes the channel."""
    channel = await link.scratch_channel()
    try:
        await step(channel, passive)
    except (ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed) as problem:
        return problem
    finally:
        with suppress(Exception):
            await channel.close()
    return None


def _explain(subject: str, problem: Exception) -> Finding:
    if isinstance(problem, ChannelNotFoundEntity):
        return Finding(subject, "does not exist", APPLY)
    if isinstance(problem, ChannelAccessRefused):
        return Finding(subject, "does not exist or may not be seen by this user", APPLY)
    remedy = "let it run empty, delete it and " + APPLY
    return Finding(subject, f"exists with other properties ({problem})", remedy)


async def _bind(link: Link, shards: int) -> list[Finding]:
    bindings = [(DEAD_QUEUE, DEAD_EXCHANGE, "")]
    bindings += [(command_queue(shard), COMMAND_EXCHANGE, command_key(shard)) for shard in range(shards)]
    channel = await link.scratch_channel()
    try:
        for queue, exchange, key in bindings:
            await (await channel.get_queue(queue, ensure=False)).bind(exchange, key)
    except ChannelAccessRefused:
        return []  # who may not bind relies on who could
    finally:
        with suppress(Exception):
            await channel.close()
    return []


async def _stray_queue(link: Link, shards: int) -> list[Finding]:
    if shards >= MAX_SHARDS:
        return []
    name = command_queue(shards)
    if await _try(link, _queue(name, {}), passive=True) is not None:
        return []
    remedy = f"set `shards` as in the database, or delete the queues from {name} on once they are empty"
    return [Finding(f"queue {name}", f"exists, but there are only {shards} shards", remedy)]
