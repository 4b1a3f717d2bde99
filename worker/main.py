"""One worker, put together: the only place that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import asyncpg
import uvloop

from schemas.backoff import Backoff
from schemas.stopping import ended, run_within
from worker.api.app import add_read_api
from worker.archive import Archive
from worker.broker.rabbit import RabbitBroker
from worker.descriptors import descriptors
from worker.engine.intake import Intake
from worker.engine.lanes import Lanes
from worker.engine.permissions import Permissions
from worker.engine.ports import LedgerUnavailable
from worker.engine.services import Engine, Options
from worker.engine.watch import Looking
from worker.errors import SettingsError
from worker.gauges import show
from worker.housekeeping import keep_house_now_and_then
from worker.hypervisor import Hypervisors
from worker.ledger.members import Members, agree_on_shards
from worker.ledger.membership import LedgerMembership
from worker.ledger.pool import connect_pool
from worker.ledger.postgres import PostgresLedger, available
from worker.servers import broker_options, database_tls
from worker.settings import load_settings, variable
from worker.telemetry.http import StatusServer
from worker.telemetry.logs import configure_logging, get_logger
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import Tracing, TracingUnavailableError
from worker.watchdog import watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from worker.settings import Settings

_log = get_logger(__name__)

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
_END_SECONDS: Final = 5.0
_BACKOFF: Final = Backoff(0.05, 5.0)
_DESCRIPTORS_EACH: Final = 3
"""A socket of libvirt's, and what it wakes its own threads with."""
_DESCRIPTORS_KEPT: Final = 512
_GARBAGE_THRESHOLDS: Final = (50_000, 20, 50)


def run() -> int:
    """Run one worker until SIGTERM or SIGINT; returns its exit status."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    _collect_garbage_seldom()
    return uvloop.run(_run(settings))


def _collect_garbage_seldom() -> None:
    """Look for cycles every so many objects more: the path makes none, and looking through all nodes takes its time."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


async def _run(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        # Not through the loop, which would let signals end the process for a moment when it gives them back.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        async with contextlib.AsyncExitStack() as parts:
            parts.enter_context(watched(loop, settings.hang_seconds))
            pool = await parts.enter_async_context(_database(settings, stop))
            if pool is not None:
                await _work(settings, pool, parts, stop)
            # Else the loop waits for them as it closes, for good if one of them lost its cancellation.
            await ended(asyncio.all_tasks() - {asyncio.current_task()}, _END_SECONDS)
    finally:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)  # told twice, it has ended well all the same
    return 0


async def _work(settings: Settings, pool: asyncpg.Pool, parts: contextlib.AsyncExitStack, stop: asyncio.Event) -> None:
    """Put the parts together, work, and take them apart in the opposite order."""
    worker = uuid4()
    metrics = Metrics(version("nodeledger"))
    lanes = Lanes()
    hypervisors = await _hypervisors(settings, metrics, parts)
    intake = Intake(lanes, settings.shards, _tracing(settings, parts))
    archive = Archive(pool, metrics)
    broker = _broker(settings, intake, archive)
    membership = LedgerMembership(Members(pool, worker, f"{socket.gethostname()}:{os.getpid()}"))
    engine = Engine(
        intake=intake,
        lanes=lanes,
        broker=broker,
        ledger=PostgresLedger(pool),
        hypervisors=hypervisors,
        pool=membership,
        metrics=metrics,
        options=_options(settings, worker),
    )
    archive.answer = engine.answer_dead
    await _serve_status(settings, pool, metrics, lambda: [*engine.problems, *_problems(broker)], parts)
    show(metrics, lanes, engine, broker, hypervisors)
    broker.start()
    parts.push_async_callback(broker.close)
    parts.push_async_callback(broker.drain, 0.0)
    parts.push_async_callback(membership.leave)
    parts.callback(asyncio.create_task(keep_house_now_and_then(pool, settings)).cancel)
    _log.info("worker started", worker=str(worker), shards=settings.shards)
    await engine.run(stop)
    _log.info("worker stopped", worker=str(worker))


async def _hypervisors(settings: Settings, metrics: Metrics, parts: contextlib.AsyncExitStack) -> Hypervisors:
    hypervisors = Hypervisors(
        allowed=settings.hypervisor_allowed,
        deadline_seconds=settings.hypervisor_deadline_seconds,
        threads=settings.hypervisor_threads,
        observe=metrics.asked_hypervisor,
    )
    await hypervisors.start()
    parts.push_async_callback(hypervisors.close)
    return hypervisors


def _tracing(settings: Settings, parts: contextlib.AsyncExitStack) -> Tracing:
    try:
        tracing = Tracing(settings.trace_exporter, version=version("nodeledger"))
    except TracingUnavailableError as fault:
        raise SettingsError(f"{variable('trace_exporter')}: {fault}") from None
    parts.callback(tracing.close)
    return tracing


def _broker(settings: Settings, intake: Intake, archive: Archive) -> RabbitBroker:
    return RabbitBroker(
        broker_options(settings),
        settings.shards,
        intake.receive,
        store=archive.store,
        prefetch=settings.prefetch,
        declare=settings.declare_topology,
        confirm_seconds=settings.confirm_seconds,
    )


async def _serve_status(
    settings: Settings,
    pool: asyncpg.Pool,
    metrics: Metrics,
    problems: Callable[[], list[str]],
    parts: contextlib.AsyncExitStack,
) -> None:
    server = StatusServer(metrics.registry, problems, names=settings.http_names)
    add_read_api(server.app, pool)
    try:
        await server.start(settings.http_host, settings.http_port, settings.http_port_file)
    except OSError as error:
        where = f"{settings.http_host}:{settings.http_port}"
        raise SettingsError(f"{variable('http_port')}: cannot listen on {where}: {error.strerror or error}") from None
    parts.push_async_callback(server.close)


def _problems(broker: RabbitBroker) -> list[str]:
    state = broker.state
    if state.consuming and state.publishing:
        return [state.archive] if state.archive is not None else []
    if state.blocked is not None:
        return [f"the broker takes no messages: {state.blocked}"]
    return [f"the broker is away: {state.last_error or 'connecting'}"]


def _options(settings: Settings, worker: UUID) -> Options:
    return Options(
        worker=worker,
        shards=settings.shards,
        batch_limit=settings.batch_limit,
        committers=settings.committers,
        park_deadline=timedelta(seconds=settings.park_deadline_seconds),
        probe_least=settings.park_probe_min_seconds,
        probe_most=settings.park_probe_max_seconds,
        verify_seconds=settings.delete_verify_seconds,
        sweep_seconds=settings.outbox_sweep_seconds,
        shutdown_seconds=settings.shutdown_seconds,
        looking=_looking(settings),
        permissions=Permissions(settings.permissions),
    )


def _looking(settings: Settings) -> Looking:
    """How much to look; no more connections stay open than leave descriptors for everything else."""
    room = max(0, descriptors() - _DESCRIPTORS_KEPT) // _DESCRIPTORS_EACH
    return Looking(
        interval=settings.audit_interval_seconds,
        calls=settings.audit_calls,
        rate=settings.audit_calls_per_second,
        watched=min(settings.watched_hypervisors, room),
    )


@contextlib.asynccontextmanager
async def _database(settings: Settings, stop: asyncio.Event) -> AsyncIterator[asyncpg.Pool | None]:
    """The pool of connections, once the database answers; none if the worker is told to stop before."""
    pool = None
    failures = 0
    while pool is None and not stop.is_set():
        try:
            async with available():
                pool = await _connected(settings)
        except LedgerUnavailable as trouble:
            _log.warning("the database does not answer; waiting for it", error=str(trouble))
            failures += 1
            with contextlib.suppress(TimeoutError):
                await run_within(stop.wait(), _BACKOFF.seconds(failures))
    try:
        yield pool
    finally:
        if pool is not None:
            pool.terminate()


async def _connected(settings: Settings) -> asyncpg.Pool:
    pool = await connect_pool(
        settings.required("database_url"),
        min_size=settings.database_pool_min,
        max_size=settings.database_pool_max,
        connect_timeout=settings.database_connect_seconds,
        command_timeout=settings.database_command_seconds,
        statement_cache=settings.database_statement_cache,
        ssl=database_tls(settings),
    )
    try:
        async with pool.acquire() as connection:
            await agree_on_shards(connection, settings.shards)
    except BaseException:
        pool.terminate()
        raise
    return pool
