"""The command line and a worker as an operator runs them: processes with an environment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from tests.published import published
from tests.servers import Database, Vhost

PROGRAM = Path(sys.executable).with_name("nodeledger")
DEADLINE_SECONDS = 60
INSTANCES = [str(UUID(int=number)) for number in range(1, 100)]

INVENTORY = {"cpus": "0-7", "memory_mib": 16384, "disk_gib": 100}
SMALL = {"vcpus": 2, "memory_mib": 1024, "disk": {"root_gib": 10}}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, read as one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Standard output, read as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class Shell:
    """An environment to run commands in."""

    environment: dict[str, str]

    async def run(self, *arguments: str, text: str = "") -> Ended:
        """Run ``nodeledger`` to its end, with ``text`` on standard input."""
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *arguments,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, err = await process.communicate(text.encode())
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def send(self, *commands: dict[str, Any]) -> Ended:
        """Send commands and wait for their outcomes."""
        ended = await self.run("send", "--wait", "--timeout", "30", "-", text=as_lines(commands))
        for line in ended.out.splitlines():
            published(line)
        return ended

    def having(self, **settings: str) -> Shell:
        """The same with other settings."""
        named = {f"NODELEDGER_{name.upper()}": value for name, value in settings.items()}
        return Shell({**self.environment, **named})


def shell(database: Database | None = None, vhost: Vhost | None = None) -> Shell:
    """An environment that names these servers and nothing of the machine's own."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("NODELEDGER_")}
    if database is not None:
        given["NODELEDGER_DATABASE_URL"] = database.worker_url
        given["NODELEDGER_DATABASE_OWNER_URL"] = database.owner_url
        given["NODELEDGER_DATABASE_READER_URL"] = database.reader_url
    if vhost is not None:
        given["NODELEDGER_AMQP_URL"] = vhost.url
    return Shell(given)


@asynccontextmanager
async def worker(operator: Shell, folder: Path) -> AsyncIterator[str]:
    """A worker that is ready; gives the address of its pages, and sees to it that it ends well."""
    port_file = folder / "port"
    settings = operator.having(http_port="0", http_port_file=str(port_file)).environment
    with (folder / "worker.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(PROGRAM, "worker", env=settings, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            address = await _ready(process, port_file)
        yield address
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() == 0, (folder / "worker.log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _ready(process: asyncio.subprocess.Process, port_file: Path) -> str:
    async with aiohttp.ClientSession() as http:
        while process.returncode is None:
            if port := _text(port_file):
                address = f"http://127.0.0.1:{port}"
                async with http.get(f"{address}/readyz") as answer:
                    if answer.status == 200:
                        return address
            await asyncio.sleep(0.05)
    raise AssertionError((port_file.parent / "worker.log").read_text())


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def as_lines(commands: Sequence[dict[str, Any]]) -> str:
    """Commands as JSON lines."""
    return "".join(f"{json.dumps(command)}\n" for command in commands)


def put(node: str, **more: Any) -> dict[str, Any]:
    """Register a node with a pushed inventory."""
    return {"kind": "node.put", "node": node, "inventory": INVENTORY, **more}


def claim(node: str, instance: str, **more: Any) -> dict[str, Any]:
    """Claim a small instance."""
    return {"kind": "claim", "node": node, "instance": instance, "project": "acme", "resources": SMALL, **more}
