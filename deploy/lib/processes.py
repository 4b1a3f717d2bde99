"""Starting the servers of a stack as an unprivileged user, and finding and ending them again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Below the range the kernel hands to outgoing connections, so that a stopped server finds its port free again.
PORTS = range(20_000, 32_000)
MARK = "NODELEDGER_STACK_PROCESS"
# The bits of linux/capability.h that let a process pass through a folder that is closed to its user.
PASSING_CAPABILITIES = {"dac_read_search": 1 << 2, "dac_override": 1 << 1}
# Servers outlive whoever starts them; a collected Popen would warn of that.
_started: list[subprocess.Popen[bytes]] = []


class StackError(Exception):
    """The stack cannot do what it was asked; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user the servers run as: `name` when root asks, whoever asks otherwise."""

    name: str | None
    prefix: tuple[str, ...]

    @classmethod
    def choose(cls, name: str, folders: Sequence[Path]) -> Account:
        """Become `name` if the caller is root, able to reach every one of `folders`.

        A checkout below /root is closed to others: there the servers get the one capability that lets them through.
        """
        if os.geteuid() != 0:
            return cls(None, ())
        become = ("setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups")
        through: list[tuple[str, ...]] = [
            # Without the fixup access(2), which Erlang asks before it writes, would leave the capability out.
            (*become, "--securebits=+no_setuid_fixup", f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}")
            for capability, bit in PASSING_CAPABILITIES.items()
            if _bounding_capabilities() & bit
        ]
        for prefix in (become, *through):
            entering = [[*prefix, "env", f"--chdir={folder}", "true"] for folder in folders]
            if all(subprocess.run(enter, stderr=subprocess.DEVNULL, check=False).returncode == 0 for enter in entering):
                return cls(name, prefix)
        raise StackError(f"user {name} cannot enter {', '.join(map(str, folders))}: choose another --dir")

    def own(self, folder: Path) -> None:
        """Make `folder`, empty or not, and give it to this user alone."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if self.name is not None and folder.owner() != self.name:
            subprocess.run(["chown", "--recursive", f"{self.name}:", folder], check=True)

    def write(self, file: Path, text: str) -> None:
        """Write `file` so that only this user and root can read it."""
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
        if self.name is not None:
            subprocess.run(["chown", f"{self.name}:", file], check=True)

    def run(self, command: Sequence[str | Path], env: Mapping[str, str], *, cwd: Path, stdin: str | None = None) -> str:
        """Run `command` to its end and return what it printed; raises StackError with its words if it failed."""
        done = subprocess.run(
            [*self.prefix, *command], env=env, cwd=cwd, input=stdin, text=True, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise StackError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout

    def start(
        self, command: Sequence[str | Path], env: Mapping[str, str], *, cwd: Path, log: Path, mark: str
    ) -> subprocess.Popen[bytes]:
        """Start `command` in the background; it and its children can be found by `mark` ever after."""
        with log.open("ab") as output:
            server = subprocess.Popen(
                [*self.prefix, *command],
                env={**env, MARK: mark},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _started.append(server)
        return server


def marked(mark: str) -> list[int]:
    """The running processes that were started under `mark`, and their children."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


def end(mark: str, *, how: signal.Signals, seconds: float) -> None:
    """Send `how` to all that runs under `mark` and wait; what is left after `seconds` is killed."""
    _send(marked(mark), how)
    try:
        wait_until(lambda: not marked(mark), seconds=seconds, what=f"{mark} to end")
    except StackError:
        _send(marked(mark), signal.SIGKILL)
        wait_until(lambda: not marked(mark), seconds=10, what=f"{mark} to die")


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Return once `condition` holds; raises StackError if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


def free_port(taken: set[int]) -> int:
    """A TCP port of the loopback interface on which nobody listens, and which is not in `taken`."""
    chance = SystemRandom()
    for _ in range(200):
        port = chance.choice(PORTS)
        if port not in taken and is_free(port):
            return port
    raise StackError("found no free port on 127.0.0.1")


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _send(pids: Sequence[int], how: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            continue


def _bounding_capabilities() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0
