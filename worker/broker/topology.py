"""The exchanges and queues: declaring them, and saying what is wrong with those that are there.

The command and dead-letter queues are quorum queues, so that a confirmed
message survives the loss of a broker node. A command queue has a single
active consumer, which is what keeps a shard's order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
from worker.errors import OperationError
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

    from worker.broker.link import Link

_log = get_logger(__name__)

LIMITS_DELIVERIES_SINCE: Final = (4, 0)
# RabbitMQ 4 drops a message after twenty deliveries unless told otherwise, and fifty honest crashes are not poison.
NEVER: Final = 1_000_000_000

APPLY: Final = "run `nodeledger topology apply` as a broker user with the `configure` permission"

DROPS: Final = "was declared before RabbitMQ 4, which drops a message after twenty deliveries unless told otherwise"
LOSES: Final = "was declared without a dead-letter exchange, so that a command that expires in it vanishes"
POLICY: Final = (
    "if it has no other policy, run "
    """`rabbitmqctl set_policy nodeledger '^nodeledger[.]' '{"delivery-limit": 1000000000}' --apply-to queues`"""
)
# Of all policies that match a queue the one of the highest priority applies alone, so that this one says both.
KEEP: Final = (
    "if it has no other policy, run `rabbitmqctl set_policy --priority 1 --apply-to queues nodeledger-commands "
    """'^nodeledger[.]commands[.]' '{"delivery-limit": 1000000000, "dead-letter-exchange": "nodeledger.dead", """
    """"dead-letter-strategy": "at-least-once", "overflow": "reject-publish"}'`"""
)

Arguments = dict[str, str | int | bool]

# A command with an AMQP `expiration` goes to the dead letters when it expires; only at-least-once keeps it until it is
# safe there, and RabbitMQ has that only where a queue that is full refuses (ours have no bound).
_EXPIRED: Final[Arguments] = {
    "x-dead-letter-exchange": DEAD_EXCHANGE,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
Step = Callable[["AbstractChannel", bool], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the broker's topology that is not as it should be, and what to do about it.

    A worker does not start over a ``blocking`` one, and warns of the others.
    """

    subject: str
    problem: str
    remedy: str
    blocking: bool = True

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}; {self.remedy}"


class TopologyError(OperationError):
    """The exchanges and queues are not as they must be; ``findings`` says what to fix."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


async def apply(link: Link, shards: int, *, bind: bool = True) -> list[Finding]:
    """Declare and bind everything; running it again changes nothing.

    What this user may not declare counts as right if it exists. Without
    ``bind``, nothing leads to the queues yet.
    """
    findings = []
    attempts = _Attempts(link)
    for part in _parts(link.server_version, shards):
        problem = await attempts.run(part.declare, passive=False)
        if isinstance(problem, ChannelAccessRefused):
            problem = await attempts.run(part.declare, passive=True)
        if problem is not None:
            findings.append(await attempts.explain(part, problem))
    if bind and not any(finding.blocking for finding in findings):
        await attempts.run(_bindings(shards), passive=False)  # who may not bind relies on who could
    await attempts.close()
    return findings


async def check(link: Link, shards: int) -> list[Finding]:
    """Look, without changing anything, whether everything exists and is of the right kind.

    Bindings cannot be seen over AMQP. What exists with other properties is
    only noticed if this user may declare it.
    """
    findings = []
    attempts = _Attempts(link)
    for part in _parts(link.server_version, shards):
        problem = await attempts.run(part.declare, passive=True)
        if problem is not None:
            findings.append(await attempts.explain(part, problem))
            continue
        problem = await attempts.run(part.declare, passive=False)
        if problem is not None and not isinstance(problem, ChannelAccessRefused):
            findings.append(await attempts.explain(part, problem))
    if shards < MAX_SHARDS and await attempts.run(_queue(command_queue(shards), {}), passive=True) is None:
        findings.append(_stray(command_queue(shards), shards))
    await attempts.close()
    return findings


async def ensure(link: Link, shards: int, *, declare: bool, bind: bool = True) -> None:
    """What a worker does on each connection: declare, or only look.

    Raises:
        TopologyError: something is missing or wrong.
    """
    findings = await (apply(link, shards, bind=bind) if declare else check(link, shards))
    blocking = [finding for finding in findings if finding.blocking]
    if blocking:
        raise TopologyError(blocking)
    for finding in findings:
        _log.warning(
            "the topology is not as it should be",
            subject=finding.subject,
            problem=finding.problem,
            remedy=finding.remedy,
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """An exchange or a queue: how it is declared, and how else it may have been, with what is wrong with that.

    Each former way has its problem and what can be done beside declaring the queue anew.
    """

    subject: str
    declare: Step
    formerly: tuple[tuple[Step, str, str], ...] = ()


def _parts(version: tuple[int, ...], shards: int) -> list[_Part]:
    kinds = ((COMMAND_EXCHANGE, "direct"), (OUTCOME_EXCHANGE, "topic"), (DEAD_EXCHANGE, "fanout"))
    exchanges = [_Part(f"exchange {name}", _exchange(name, kind)) for name, kind in kinds]
    quorum: Arguments = {"x-queue-type": "quorum"}
    commands: Arguments = {**quorum, "x-single-active-consumer": True}
    unlimited: Arguments = {} if version < LIMITS_DELIVERIES_SINCE else {"x-delivery-limit": NEVER}
    return [
        *exchanges,
        _queue_part(DEAD_QUEUE, quorum, unlimited, {}),
        *(_queue_part(command_queue(shard), commands, unlimited, _EXPIRED) for shard in range(shards)),
    ]


def _queue_part(name: str, kind: Arguments, unlimited: Arguments, expired: Arguments) -> _Part:
    """A queue as it is declared now; formerly it may have been without what was added since."""
    formerly = []
    if unlimited:
        formerly.append((_queue(name, kind | expired), DROPS, POLICY))
    if expired:
        formerly.append((_queue(name, kind | unlimited), LOSES, KEEP))
    if unlimited and expired:
        formerly.append((_queue(name, kind), f"{DROPS}, and {LOSES}", KEEP))
    return _Part(f"queue {name}", _queue(name, kind | unlimited | expired), tuple(formerly))


def _exchange(name: str, kind: str) -> Step:
    return lambda channel, passive: channel.declare_exchange(name, kind, durable=True, passive=passive)


def _queue(name: str, arguments: Arguments) -> Step:
    return lambda channel, passive: channel.declare_queue(
        name, durable=True, passive=passive, arguments=dict(arguments)
    )


class _Attempts:
    """Runs steps one after another, on a new channel after each refusal, since a refusal closes the channel."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: AbstractChannel | None = None

    async def run(self, step: Step, *, passive: bool) -> Exception | None:
        """Run a step; what the broker has against it."""
        if self._channel is None:
            self._channel = await self._link.scratch_channel()
        try:
            await step(self._channel, passive)
        except (ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed) as problem:
            self._channel = None
            return problem
        return None

    async def explain(self, part: _Part, problem: Exception) -> Finding:
        """What a problem means and what to do about it."""
        if isinstance(problem, ChannelNotFoundEntity):
            return Finding(part.subject, "does not exist", APPLY)
        if isinstance(problem, ChannelAccessRefused):
            return Finding(part.subject, "does not exist or may not be seen by this user", APPLY)
        remedy = f"let it run empty, delete it and {APPLY}"
        for declare, wrong, instead in part.formerly:
            if await self.run(declare, passive=False) is None:
                return Finding(part.subject, wrong, f"{remedy}, or {instead}", blocking=False)
        return Finding(part.subject, f"exists with other properties ({problem})", remedy)

    async def close(self) -> None:
        """Close the channel in use."""
        if self._channel is not None:
            await self._channel.close()


def _bindings(shards: int) -> Step:
    async def bind(channel: AbstractChannel, _passive: bool) -> None:  # noqa: FBT001 - a step's signature
        await (await channel.get_queue(DEAD_QUEUE, ensure=False)).bind(DEAD_EXCHANGE, "")
        for shard in range(shards):
            queue = await channel.get_queue(command_queue(shard), ensure=False)
            await queue.bind(COMMAND_EXCHANGE, command_key(shard))

    return bind


def _stray(queue: str, shards: int) -> Finding:
    remedy = f"set `shards` as in the database, or delete the queues from {queue} on once they are empty"
    return Finding(f"queue {queue}", f"exists, but there are only {shards} shards", remedy, blocking=False)
