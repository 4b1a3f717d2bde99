"""A pool of real workers, each a process, to be killed, paused and told to leave."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

PROGRAM: Final = (str(Path(sys.executable).with_name("nodeledger")), "worker")
_READY_SECONDS: Final = 60
_STOP_SECONDS: Final = 60


@dataclass(slots=True)
class Worker:
    """One place in the pool, and the process that has it now."""

    name: str
    folder: Path
    environment: Mapping[str, str]
    program: tuple[str, ...] = PROGRAM
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    ends: list[int] = field(default_factory=list)
    """Exit statuses of processes that ended by themselves or were told to."""

    @property
    def pid(self) -> int:
        """The process now."""
        assert self.process is not None
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether its process is no more."""
        return self.process is None or self.process.returncode is not None

    @property
    def log(self) -> Path:
        """What all its processes wrote."""
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Start a process; it is ready in its own time."""
        self.starts += 1
        self._port_file.unlink(missing_ok=True)
        more = {"NODELEDGER_HTTP_PORT": "0", "NODELEDGER_HTTP_PORT_FILE": str(self._port_file)}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.program, env={**self.environment, **more}, stdout=log, stderr=log
            )

    async def ready(self) -> None:
        """Wait until it says that it is."""
        async with aiohttp.ClientSession() as http, asyncio.timeout(_READY_SECONDS):
            while not await self._is_ready(http):  # another process: there is nothing to wait on
                assert self.process is not None
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.05)

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        if not self._port_file.exists() or not (port := self._port_file.read_text().strip()):
            return False
        with suppress(aiohttp.ClientError):
            async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status == 200
        return False

    async def kill(self) -> None:
        """As a power cut does."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        elif self.process.returncode != -signal.SIGKILL:
            self.ends.append(self.process.returncode)
        await self.process.wait()

    async def stop(self) -> int:
        """Tell it to finish, and wait for its exit status."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            status = await self.process.wait()
        self.ends.append(status)
        return status

    async def pause(self, seconds: float) -> None:
        """Stop it where it stands, and let it go on."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    @property
    def resident_mib(self) -> int:
        """Its memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    @property
    def _port_file(self) -> Path:
        return self.folder / f"{self.name}.port"
