"""What ``nodeledger doctor`` looks at, one server at a time. Each check tells what it found and what would fix it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from worker.broker import topology
from worker.engine.ports import HypervisorUnreachable
from worker.errors import SettingsError
from worker.ledger import migrate, readers
from worker.ledger.installation import installation, server, waiting
from worker.ledger.members import members_alive
from worker.operations.errors import in_words
from worker.operations.shards import shards
from worker.servers import broker, owning, writing
from worker.settings import Settings, load_settings, variable

if TYPE_CHECKING:
    import asyncpg

    from worker.hypervisor.pool import Hypervisors
    from worker.ledger.readers import Node

Health = Literal["good", "warning", "bad"]

_OLDEST_BROKER: Final = (3, 10)
_MOST_SKEW: Final = timedelta(seconds=2)
_ALIVE_SECONDS: Final = 15.0
"""A worker that was seen so lately is taken to be there: it says so every second, unless the machine is busy."""
_ASKED_AT_ONCE: Final = 64
_NODES: Final = 1000
_UNPUBLISHED: Final = "see whether a worker runs and reaches the broker"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at; ``remedy`` says what to do where it is not good."""

    subject: str
    health: Health
    found: str
    remedy: str | None = None


async def examine(*, hypervisors: bool) -> AsyncIterator[Diagnosis]:
    """Look at everything; what cannot be looked at because something else is missing is left out."""
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Diagnosis("settings", "bad", str(error), "set the variable right; nothing else can be looked at before")
        return
    for diagnosis in _settings(settings):
        yield diagnosis
    if settings.amqp_url is not None:
        async for diagnosis in _reached("broker", _broker()):
            yield diagnosis
    if settings.database_owner_url is not None:
        async for diagnosis in _reached("schema", _schema()):
            yield diagnosis
    if settings.database_url is not None:
        async for diagnosis in _reached("database", _database(settings, hypervisors=hypervisors)):
            yield diagnosis


async def _reached(subject: str, work: AsyncIterator[Diagnosis]) -> AsyncIterator[Diagnosis]:
    """The work's findings, and, where the server does not let it go on, that."""
    try:
        async for diagnosis in work:
            yield diagnosis
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the doctor was asked for
        yield Diagnosis(subject, "bad", str(in_words(error)))


def _settings(settings: Settings) -> list[Diagnosis]:
    needed = [variable(name) for name in ("amqp_url", "database_url") if getattr(settings, name) is None]
    found = [Diagnosis("settings", "bad", f"{name} is not set", f"set it, or {name}_FILE") for name in needed]
    if settings.database_owner_url is None:
        remedy = "set it where `nodeledger db upgrade` and `db check` are to run"
        found.append(Diagnosis("settings", "warning", "NODELEDGER_DATABASE_OWNER_URL is not set", remedy))
    return found or [Diagnosis("settings", "good", "complete")]


async def _broker() -> AsyncIterator[Diagnosis]:
    async with broker() as link:
        version = ".".join(map(str, link.server_version))
        if link.server_version < _OLDEST_BROKER:
            yield Diagnosis("broker", "bad", f"RabbitMQ {version}", "upgrade it to 3.10 or newer")
        else:
            yield Diagnosis("broker", "good", f"RabbitMQ {version} answers")
        findings = await topology.check(link, await shards())
        for finding in findings:
            yield Diagnosis(finding.subject, "bad", finding.problem, finding.remedy)
        if not findings:
            yield Diagnosis("topology", "good", "every exchange and queue is in place")
        if link.tap.blocked is not None:
            remedy = "give it memory or disk space: see `rabbitmq-diagnostics alarms`"
            yield Diagnosis("broker", "bad", f"takes no messages: {link.tap.blocked}", remedy)


async def _schema() -> AsyncIterator[Diagnosis]:
    async with owning() as connection:
        problems = await migrate.check(connection)
    for problem in problems:
        yield Diagnosis("schema", "bad", problem)
    if not problems:
        yield Diagnosis("schema", "good", "migrations, roles and privileges are as they should be")


async def _database(settings: Settings, *, hypervisors: bool) -> AsyncIterator[Diagnosis]:
    async with writing() as pool:
        for diagnosis in await _server(pool):
            yield diagnosis
        async for diagnosis in _ledger(pool, settings):
            yield diagnosis
        if hypervisors:
            async for diagnosis in _hypervisors(pool, settings):
                yield diagnosis


async def _server(pool: asyncpg.Pool) -> list[Diagnosis]:
    """The server's settings and clock."""
    asked_at = datetime.now(UTC)
    told = await server(pool)
    answered_at = datetime.now(UTC)
    found = [Diagnosis("database", "good", f"PostgreSQL {told.version} answers")]
    if told.read_only:
        found.append(
            Diagnosis("database", "bad", "is a read-only replica", "point NODELEDGER_DATABASE_URL at the primary")
        )
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if getattr(told, name) == "off":
            remedy = f"set {name} to on: a power cut could undo what was acknowledged"
            found.append(Diagnosis("durability", "bad", f"{name} is off", remedy))
    return [*found, _clock(max(asked_at - told.clock, told.clock - answered_at, timedelta()))]


def _clock(skew: timedelta) -> Diagnosis:
    if skew <= _MOST_SKEW:
        return Diagnosis("clock", "good", "agrees with the database's")
    remedy = "let both keep time by NTP: expires_at and leases are decided by the database's clock"
    return Diagnosis("clock", "warning", f"{skew.total_seconds():.1f} s apart from the database's", remedy)


async def _ledger(pool: asyncpg.Pool, settings: Settings) -> AsyncIterator[Diagnosis]:
    """What the ledger says of the installation."""
    stored = await installation(pool)
    if stored is not None and stored.shards != settings.shards:
        remedy = f"set NODELEDGER_SHARDS to {stored.shards}"
        found = f"the setting is {settings.shards}, the installation has {stored.shards}"
        yield Diagnosis("shards", "bad", found, remedy)
    alive = await members_alive(pool, _ALIVE_SECONDS)
    if alive:
        yield Diagnosis("workers", "good", f"{len(alive)} alive")
    else:
        yield Diagnosis("workers", "warning", "none is alive", "start one: `nodeledger worker`")
    open_ = await waiting(pool)
    for subject, count, found, remedy in (
        ("dead letters", open_.dead_letters, "open dead letters", "see `nodeledger dead list --groups`"),
        ("parked", open_.parked, "commands wait for a hypervisor", "see below which one does not answer"),
        ("unpublished", open_.unpublished, "batches have outcomes that are not published", _UNPUBLISHED),
    ):
        if count:
            yield Diagnosis(subject, "warning", f"{count} {found}", remedy)


async def _hypervisors(pool: asyncpg.Pool, settings: Settings) -> AsyncIterator[Diagnosis]:
    """Whether each node's hypervisor may be asked, and answers."""
    from worker.hypervisor.pool import Hypervisors  # libvirt is loaded only where it is asked something

    async with pool.acquire() as connection:
        nodes = [node for node in await readers.nodes(connection, limit=_NODES) if node.hypervisor is not None]
    asking = Hypervisors(
        allowed=settings.hypervisor_allowed,
        deadline_seconds=settings.hypervisor_deadline_seconds,
        threads=settings.hypervisor_threads,
    )
    await asking.start()
    try:
        answers = await _ask(asking, nodes)
    finally:
        await asking.close()
    for node, answer in zip(nodes, answers, strict=True):
        if answer is not None:
            remedy = "fix the host, or NODELEDGER_HYPERVISOR_ALLOWED, or put the node anew with another address"
            yield Diagnosis(f"node {node.node}", "bad", answer, remedy)
    good = answers.count(None)
    if good:
        yield Diagnosis("hypervisors", "good", f"{good} of {len(nodes)} answer")


async def _ask(asking: Hypervisors, nodes: Sequence[Node]) -> list[str | None]:
    """For each node why its hypervisor does not serve; ``None`` where it does."""
    room = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def one(node: Node) -> str | None:
        address = node.hypervisor or ""
        if (refusal := asking.refusal(address)) is not None:
            return f"its address is not allowed: {refusal}"
        try:
            async with room:
                await asking.inventory(node.node, address)
        except HypervisorUnreachable as error:
            return f"its hypervisor does not answer: {error.detail}"
        return None

    return list(await asyncio.gather(*map(one, nodes)))
