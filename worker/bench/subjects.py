"""The processes that are measured: started, made to wait while a backlog builds up, looked at, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from worker.errors import OperationError

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB_PER_MIB: Final = 1024


class Subject:
    """A process under measurement. It is ready when it has written the file named by ``ready``."""

    def __init__(self, process: asyncio.subprocess.Process, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._process = process
        self._folder = folder

    @classmethod
    async def start(cls, arguments: Sequence[str], settings: Mapping[str, str]) -> Subject:
        """Start ``python`` with these arguments, and these settings on top of our own; does not wait."""
        folder = tempfile.TemporaryDirectory(prefix="nodeledger-bench-")
        log = Path(folder.name) / "log"
        own = {
            "NODELEDGER_HTTP_PORT": "0",
            "NODELEDGER_HTTP_PORT_FILE": str(Path(folder.name) / "ready"),
            "NODELEDGER_LOG_LEVEL": "warning",
        }
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                env={**os.environ, **own, **settings},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return cls(process, folder)

    async def ready(self) -> int:
        """Wait until it says that it is ready; the number it left, a worker's HTTP port.

        Raises:
            OperationError: it ended, or did not get ready in time.
        """
        file = Path(self._folder.name) / "ready"
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self._process.returncode is None:
                    if file.exists() and (text := file.read_text().strip()):
                        return int(text)
                    await asyncio.sleep(0.02)
        raise OperationError(f"a measured process did not start: {self._last_words()}")

    def hold(self) -> None:
        """Make the process wait, as it stands."""
        self._process.send_signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            OperationError: it does not.
        """
        if self._process.returncode is not None:
            raise OperationError(f"a measured process ended: {self._last_words()}")

    def cpu_seconds(self) -> float:
        """Processor time it has used since its start, in seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mib(self) -> float:
        """Memory it has in use, in MiB."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / _KIB_PER_MIB
        return 0.0

    async def stop(self) -> None:
        """End it in good order, or else."""
        with suppress(ProcessLookupError):
            self.release()
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._folder.cleanup()

    def _last_words(self) -> str:
        lines = (Path(self._folder.name) / "log").read_text(errors="replace").splitlines()
        return " ".join(lines[-1].split())[-500:] if lines else f"it exited with {self._process.returncode}"


def machine_busy_seconds() -> float:
    """Processor time that everything on this machine has used, in seconds."""
    user, nice, system, _idle, _wait, irq, soft, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, soft))) / _TICKS
