from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import pytest

from deploy.lib.postgres import DATABASE, LOGINS, SUPERUSER, Postgres
from deploy.lib.processes import StackError, free_port
from deploy.lib.stack import Stack
from tests.driver.run import Run, pool
from tests.driver.workload import Shape
from tests.faults.trouble import run_through
from tests.servers import Database, Vhost, stack_folder
from worker.ledger.migrate import upgrade

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SENDING_SECONDS: Final = 6
NOTICING_SECONDS: Final = 20
END_SESSIONS: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'nodeledger_worker'"
DISK_MIB: Final = 192


@asynccontextmanager
async def superuser(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        yield connection
    finally:
        await connection.close()


async def until_not_ready(run: Run, word: str) -> None:
    """Wait until the readiness page of every worker says that the database is the trouble, and which."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(NOTICING_SECONDS):
        for worker in run.workers:
            port = (worker.folder / f"{worker.name}.port").read_text().strip()
            while True:  # another process: there is nothing to wait on
                async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    problems = (await answer.json())["problems"]
                    if answer.status == 503 and any(word in problem for problem in problems):
                        break
                await asyncio.sleep(0.1)


async def until_ready(run: Run) -> None:
    await asyncio.gather(*(worker.ready() for worker in run.workers))


async def endured(run: Run, operator: asyncpg.Connection, begin: Sequence[str], word: str, end: Sequence[str]) -> None:
    """Bring trouble about, wait until every worker says so, end it, and wait until all work again."""
    await until_ready(run)
    for statement in begin:
        await operator.execute(statement)
    try:
        await until_not_ready(run, word)
    finally:
        for statement in end:
            await operator.execute(statement)
    await until_ready(run)


async def test_without_connections_the_pool_waits_says_so_and_goes_on(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    limit = f"ALTER DATABASE {database.name} CONNECTION LIMIT"
    async with pool(stack, vhost, database, tmp_path, 2) as run, superuser(database) as operator:

        async def none_left() -> None:
            await endured(run, operator, [f"{limit} 0", END_SESSIONS], "too many connections", [f"{limit} -1"])

        report = await run_through(run, Shape(seed=14, commands=1000, nodes=30, phases=1), SENDING_SECONDS, none_left)
        assert not report.faults, report.figures


@pytest.mark.parametrize("where", ["server", "new-sessions"])
async def test_of_a_read_only_database_the_pool_says_so_and_goes_on_when_it_takes_writes_again(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path, where: str
) -> None:
    whose = "ALTER SYSTEM" if where == "server" else f"ALTER DATABASE {database.name}"
    # The server's setting also reaches sessions that are open; a database's only those that begin.
    reload = "SELECT pg_reload_conf()"
    begin = [f"{whose} SET default_transaction_read_only = on", reload if where == "server" else END_SESSIONS]
    end = ["SET default_transaction_read_only = off", f"{whose} RESET default_transaction_read_only", reload]
    async with pool(stack, vhost, database, tmp_path, 2) as run, superuser(database) as operator:

        async def read_only() -> None:
            await endured(run, operator, begin, "read-only", end)

        report = await run_through(run, Shape(seed=15, commands=1000, nodes=30, phases=1), SENDING_SECONDS, read_only)
        assert not report.faults, report.figures


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own that is soon full, in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "nodeledger-small-disk", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk that can be filled is mounted, which this machine does not let us do")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@asynccontextmanager
async def server_on(
    disk: Path, stack: Stack, *, log_elsewhere: Path | None
) -> AsyncIterator[tuple[Postgres, Database]]:
    """A server whose data, and unless ``log_elsewhere`` its write-ahead log too, are on that disk."""
    server = Postgres(disk / "postgres", stack.postgres.account, free_port(set()), stack.postgres.passwords)
    try:
        await asyncio.to_thread(server.start)
        if log_elsewhere is not None:
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(shutil.copytree, server.data / "pg_wal", log_elsewhere)
            shutil.rmtree(server.data / "pg_wal")
            server.account.own(log_elsewhere)
            (server.data / "pg_wal").symlink_to(log_elsewhere)
            await asyncio.to_thread(server.start)
        owner = await asyncpg.connect(server.url(LOGINS[0], DATABASE))
        await upgrade(owner)
        await owner.close()
        urls = [server.url(name, DATABASE) for name in (*LOGINS, SUPERUSER)]
        yield server, Database(DATABASE, *urls)
    finally:
        await asyncio.to_thread(server.stop, immediate=True)


async def started_again(server: Postgres) -> None:
    """As a supervisor does where the server ended, as it may for want of room."""
    async with asyncio.timeout(NOTICING_SECONDS):
        while True:  # another process: there is nothing to wait on
            with suppress(StackError, OSError, asyncpg.PostgresError):
                await asyncio.to_thread(server.start)
                await (await asyncpg.connect(server.url(SUPERUSER, DATABASE))).close()
                return
            await asyncio.sleep(0.1)


def fill(file: Path) -> None:
    """Write until there is no room for a byte more."""
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 4096):
            with suppress(OSError):
                while True:
                    stream.write(b"\1" * size)
    assert os.statvfs(file).f_bavail == 0


@pytest.mark.parametrize("log_too", [False, True], ids=["data", "data-and-log"])
async def test_on_a_full_disk_the_pool_waits_says_so_and_goes_on_when_there_is_room(
    stack: Stack, vhost: Vhost, tmp_path: Path, *, log_too: bool
) -> None:
    with stack_folder() as folder, small_disk(folder / "disk") as disk:
        async with server_on(disk, stack, log_elsewhere=None if log_too else folder / "log") as (server, database):
            full = replace(stack, postgres=server)
            async with pool(full, vhost, database, tmp_path, 2) as run:

                async def no_room() -> None:
                    await until_ready(run)
                    await asyncio.to_thread(fill, disk / "ballast")
                    try:
                        await until_not_ready(run, "the database does not answer" if log_too else "No space left")
                    finally:
                        (disk / "ballast").unlink()
                        await started_again(server)
                    await until_ready(run)

                shape = Shape(seed=16, commands=1000, nodes=30, phases=1)
                report = await run_through(run, shape, SENDING_SECONDS, no_room)
                assert not report.faults, report.figures
