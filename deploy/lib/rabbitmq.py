"""The private RabbitMQ node of a stack: Debian's package, run beside the system's own node without touching it."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from deploy.lib.processes import Account, StackError, end, marked, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

# The package's scripts themselves: those in /usr/sbin switch to the system's node and its user.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
USER = "nodeledger"
NODE = "nodeledger@localhost"
START_SECONDS = 60
STOP_SECONDS = 30
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = b"\x01"
NOT_CONNECTED = "failed to connect to node"

CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
default_user_tags.administrator = true
disk_free_limit.absolute = 64MB
raft.wal_max_size_bytes = 67108864
log.file.level = warning
"""
HOSTS = '{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n'


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """A node under `folder`, with a port mapper of its own, all listening on 127.0.0.1 alone."""

    folder: Path
    account: Account
    port: int
    distribution_port: int
    port_mapper_port: int
    password: str
    cookie: str

    @property
    def _mark(self) -> str:
        return f"{self.folder}:node"

    @property
    def _port_mapper_mark(self) -> str:
        return f"{self.folder}:epmd"

    def url(self, vhost: str = "/") -> str:
        """Where and as whom to connect, password included."""
        return f"amqp://{USER}:{self.password}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def running(self) -> bool:
        """Whether the node is up and speaks AMQP."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.settimeout(10)
                connection.sendall(PROTOCOL_HEADER)
                return connection.recv(1) == METHOD_FRAME and bool(marked(self._mark))
        except OSError:
            return False

    def start(self) -> None:
        """Start the node unless it is up; returns when it accepts connections."""
        if self.running():
            return
        if not PROGRAMS.exists():
            raise StackError("no RabbitMQ here: install Debian's rabbitmq-server")
        self._write_configuration()
        self.stop()
        self._launch(["epmd", "-address", "127.0.0.1", "-port", str(self.port_mapper_port)], self._port_mapper_mark)
        wait_until(self._port_mapper_listens, seconds=10, what="Erlang's port mapper")
        node = self._launch([PROGRAMS / "rabbitmq-server"], self._mark)
        place = f"see {self.folder / 'startup.log'} and {self.folder / 'log'}"
        wait_until(
            lambda: self.running() or node.poll() is not None,
            seconds=START_SECONDS,
            what=f"RabbitMQ; {place}",
        )
        if node.poll() is not None:
            raise StackError(f"RabbitMQ ended at its start; {place}")

    def stop(self, *, immediate: bool = False) -> None:
        """End the node and its port mapper, or what is left of them; `immediate` as if the node crashed."""
        end(self._mark, how=signal.SIGKILL if immediate else signal.SIGTERM, seconds=STOP_SECONDS)
        end(self._port_mapper_mark, how=signal.SIGTERM, seconds=STOP_SECONDS)

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints; about a second, most of it Erlang's start."""
        return self.account.run([PROGRAMS / "rabbitmqctl", "--quiet", *arguments], self._environment(), cwd=self.folder)

    def add_vhost(self, name: str) -> str:
        """Make a virtual host that the stack's user may use, and return its URL."""
        user, host, everything = (f'<<"{word}">>' for word in (USER, name, ".*"))
        self._evaluate(
            f"ok = rabbit_vhost:add({host}, {user}), ok = rabbit_auth_backend_internal:set_permissions("
            f"{user}, {host}, {everything}, {everything}, {everything}, {user})"
        )
        return self.url(name)

    def delete_vhost(self, name: str) -> None:
        """Remove a virtual host with all its queues and connections."""
        self._evaluate(f'ok = rabbit_vhost:delete(<<"{name}">>, <<"{USER}">>)')

    def save_queues(self) -> None:
        """Write the register of quorum queues to disk now.

        RabbitMQ 3.10 does so half a second after a queue is declared, and a crash before that leaves the queue useless.
        """
        self._evaluate("ok = lists:foreach(fun dets:sync/1, dets:all())")

    def _evaluate(self, expression: str) -> None:
        """Evaluate Erlang inside the node: what `control` can do, in a fiftieth of its time where `erl_call` works."""
        said = self._call(expression) if _resolves_itself() else None
        if said is None:
            self.control("eval", f"{expression}.")
        elif not said.startswith("{ok,"):
            raise StackError(f"the broker would not evaluate {expression}: {said}")

    def _call(self, expression: str) -> str | None:
        call = ["erl_call", "-r", "-n", NODE, "-e"]
        try:
            return self.account.run(call, self._environment(), cwd=self.folder, stdin=f"{expression}.\n")
        except StackError as error:
            # A node short of CPU may be slower to answer than erl_call is patient; nothing was evaluated then.
            if NOT_CONNECTED not in str(error):
                raise
            return None

    def _launch(self, command: Sequence[str | Path], mark: str) -> subprocess.Popen[bytes]:
        log = self.folder / "startup.log"
        return self.account.start(command, self._environment(), cwd=self.folder, log=log, mark=mark)

    def _write_configuration(self) -> None:
        self.account.own(self.folder)
        # Erlang insists that its cookie cannot be read by others.
        self.account.write(self.folder / ".erlang.cookie", self.cookie)
        self.account.write(self.folder / "hosts.erl", HOSTS)
        self.account.write(self.folder / "enabled_plugins", "[].\n")
        settings = CONFIGURATION.format(port=self.port, user=USER, password=self.password)
        self.account.write(self.folder / "rabbitmq.conf", settings)

    def _environment(self) -> dict[str, str]:
        """Everything the package's scripts would otherwise take from /etc/rabbitmq and /var/lib/rabbitmq."""
        folder = self.folder
        return {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.port_mapper_port),
            "ERL_INETRC": str(folder / "hosts.erl"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _port_mapper_listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port_mapper_port), timeout=1).close()
        except OSError:
            return False
        return True


def _resolves_itself() -> bool:
    """Whether this machine knows its own name, without which Erlang's erl_call crashes: a bare chroot does not."""
    try:
        for name in (socket.gethostname(), "localhost"):
            socket.gethostbyname(name)
    except OSError:
        return False
    return True
