"""Debian's PgBouncer in transaction mode, before a stack's Postgres."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.lib.postgres import LOGINS
from deploy.lib.processes import end, free_port, wait_until
from deploy.lib.stack import Stack

PROGRAM: Final = Path("/usr/sbin/pgbouncer")

# Fewer server connections than clients: one client's transactions do land on different ones.
CONFIGURATION: Final = """\
[databases]
* = host=127.0.0.1 port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 100
server_login_retry = 0.2
logfile = {folder}/pgbouncer.log
"""


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A pooler that can be killed and started again."""

    folder: Path
    stack: Stack
    port: int

    def start(self) -> None:
        """Start it; returns when it listens."""
        account = self.stack.postgres.account
        account.own(self.folder)
        text = CONFIGURATION.format(server=self.stack.postgres.port, port=self.port, folder=self.folder)
        passwords = self.stack.postgres.passwords
        account.write(self.folder / "pgbouncer.ini", text)
        account.write(self.folder / "users", "".join(f'"{name}" "{passwords[name]}"\n' for name in LOGINS))
        log = self.folder / "startup.log"
        account.start([PROGRAM, self.folder / "pgbouncer.ini"], {}, cwd=self.folder, log=log, mark=self._mark)
        wait_until(self._listens, seconds=20, what=f"PgBouncer; see {log}")

    def stop(self, *, immediate: bool = False) -> None:
        """End it, or kill it."""
        end(self._mark, how=signal.SIGKILL if immediate else signal.SIGTERM, seconds=10)

    @property
    def _mark(self) -> str:
        return f"{self.folder}:pgbouncer"

    def _listens(self) -> bool:
        log = self.folder / "pgbouncer.log"
        return log.exists() and f"listening on 127.0.0.1:{self.port}" in log.read_text()


@asynccontextmanager
async def pgbouncer(stack: Stack) -> AsyncIterator[PgBouncer]:
    """One that runs, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="nodeledger-pgbouncer-"))
    made = PgBouncer(folder, stack, free_port(set()))
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        made.stop(immediate=True)
        shutil.rmtree(folder)
