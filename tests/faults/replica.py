"""A primary and its synchronous replica, of which the first can be lost and the second promoted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg

from deploy.lib.postgres import CONFIGURATION, SUPERUSER, Postgres, program_folders
from deploy.lib.processes import free_port
from deploy.lib.stack import Stack

SYNCHRONOUS: Final = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers of the same data."""

    primary: Postgres
    replica: Postgres

    def url(self, role: str, database: str) -> str:
        """An address that names both, and lets in at the one that takes writes."""
        both = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.replica.port}"
        login = f"{role}:{self.primary.passwords[role]}"
        return f"postgresql://{login}@{both}/{database}?target_session_attrs=read-write"

    def kill_primary(self) -> None:
        """As a power cut does: every process of it."""
        for pid in _processes(self.primary):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze_primary(self) -> None:
        """As a lost network does: connections to it neither end nor answer."""
        for pid in _processes(self.primary):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    async def promote(self) -> None:
        """What an operator or a fail-over manager does."""
        connection = await asyncpg.connect(self.replica.url(SUPERUSER, "postgres"))
        try:
            assert await connection.fetchval("SELECT pg_promote()")
        finally:
            await connection.close()


@asynccontextmanager
async def primary_and_replica(stack: Stack, folder: Path) -> AsyncIterator[Pair]:
    """A pair beside a stack's own server; no transaction counts as committed before the replica has it."""
    passwords = stack.postgres.passwords
    first = free_port(set())
    primary = Postgres(folder / "primary", stack.postgres.account, first, passwords)
    pair = Pair(primary, replace(primary, folder=folder / "replica", port=free_port({first})))
    try:
        await asyncio.to_thread(primary.start)
        await asyncio.to_thread(_start_replica, pair)
        await _follow(pair)
        yield pair
    finally:
        pair.kill_primary()
        await asyncio.to_thread(pair.replica.stop, immediate=True)


def _start_replica(pair: Pair) -> None:
    replica = pair.replica
    replica.account.own(replica.folder)
    home = {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(replica.folder)}
    programs = program_folders()[0]

    def run(program: str, *options: str) -> None:
        replica.account.run([programs / program, *options], home, cwd=replica.folder)

    origin = pair.primary.url(SUPERUSER, "postgres")
    run("pg_basebackup", f"--pgdata={replica.data}", f"--dbname={origin}", "--write-recovery-conf", "--checkpoint=fast")
    replica.account.write(replica.data / "postgresql.conf", CONFIGURATION.format(port=replica.port))
    run("pg_ctl", "start", f"--pgdata={replica.data}", "--wait", "--silent", f"--log={replica.folder / 'postgres.log'}")


async def _follow(pair: Pair) -> None:
    connection = await asyncpg.connect(pair.primary.url(SUPERUSER, "postgres"))
    try:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(30):
            while not await connection.fetchval(SYNCHRONOUS):  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


def _processes(server: Postgres) -> list[int]:
    """The postmaster and its children, if it runs."""
    if not server.running():
        return []
    postmaster = (server.data / "postmaster.pid").read_text().split("\n", 1)[0]
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [int(pid) for pid in (postmaster, *children)]
