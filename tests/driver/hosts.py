"""Hypervisors that go and come back: one libvirt daemon, and in front of it an address of its own for each node."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Final, Self

from deploy.lib.processes import free_port
from tests.driver.proxy import Proxy
from tests.reference.room import Json
from worker.hypervisor import Hypervisors

_START_SECONDS: Final = 30
_CONFIGURATION: Final = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "{port}"
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_dir = "{folder}"
max_clients = 10000
max_anonymous_clients = 10000
"""


class Line(Proxy):
    """The way to a hypervisor, which can be gone for a while."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.gone = False
        self._hanging = False
        self._answers = asyncio.Event()
        self._answers.set()

    def go(self, *, hanging: bool) -> None:
        """Cut every connection and refuse new ones; or leave them all ``hanging``, open and without a word."""
        self.gone, self._hanging = True, hanging
        self._answers.clear()
        if not hanging:
            self.cut_all()

    def come_back(self) -> None:
        """Serve new connections again; what hung is cut, as by a reboot."""
        self.gone = False
        self.cut_all()
        self._answers.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.gone and self._hanging:
            await self._answers.wait()
            writer.transport.abort()
        elif self.gone:
            writer.transport.abort()
        else:
            await super()._serve(reader, writer)

    async def pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """As the proxy does, while the hypervisor is there."""
        while data := await source.read(65_536):
            await self._answers.wait()
            target.write(data)
            await target.drain()
        raise ConnectionResetError


class Hosts:
    """The hypervisors of some nodes, all of them libvirt's test driver; none, and no daemon, without nodes.

    Needs libvirtd, and root to start it.
    """

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = nodes
        self._lines: list[Line] = []
        self._parts = AsyncExitStack()
        self.addresses: dict[str, str] = {}
        self.inventories: dict[str, Json] = {}

    @property
    def settings(self) -> dict[str, str]:
        """How workers find out soon who is gone and who is back."""
        if not self._nodes:
            return {}
        return {
            "hypervisor_allowed": "test+tcp://127.0.0.1:*/default",
            "hypervisor_deadline_seconds": "2",
            "park_probe_max_seconds": "2",
            "delete_verify_seconds": "1",
        }

    def some(self, random: Random) -> list[Line]:
        """A few of them that nothing is being done to."""
        there = [line for line in self._lines if not line.gone]
        return random.sample(there, (len(there) + 1) // 2)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as parts:
            if self._nodes:
                await self._open(parts)
            self._parts = parts.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._parts.aclose()

    async def _open(self, parts: AsyncExitStack) -> None:
        port = await _daemon(parts)
        for node in self._nodes:
            line = await parts.enter_async_context(Line(port))
            self._lines.append(line)
            self.addresses[node] = f"test+tcp://127.0.0.1:{line.port}/default"
        hypervisors = Hypervisors(allowed=("test+tcp://127.0.0.1:*/default",))
        await hypervisors.start()
        parts.push_async_callback(hypervisors.close)
        first = self._nodes[0]
        said = await hypervisors.inventory(first, self.addresses[first])
        inventory = json.loads(said.model_dump_json(exclude_defaults=True))
        self.inventories = dict.fromkeys(self._nodes, inventory)


async def _daemon(parts: AsyncExitStack) -> int:
    """Start a libvirt daemon that anybody on this machine may speak to, and say where it listens."""
    program = shutil.which("libvirtd", path="/usr/sbin:/usr/bin")
    assert program is not None, "libvirtd is not installed"
    folder = Path(tempfile.mkdtemp(prefix="nodeledger-libvirtd-"))
    parts.callback(shutil.rmtree, folder)
    port = free_port(set())
    (folder / "libvirtd.conf").write_text(_CONFIGURATION.format(port=port, folder=folder))
    log = parts.enter_context((folder / "libvirtd.log").open("wb"))
    arguments = ("--listen", "--config", str(folder / "libvirtd.conf"), "--pid-file", str(folder / "pid"))
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    daemon = await asyncio.create_subprocess_exec(program, *arguments, stdout=log, stderr=log, env=environment)
    parts.push_async_callback(daemon.wait)
    parts.callback(daemon.terminate)
    async with asyncio.timeout(_START_SECONDS):
        while not await _listens(port):
            assert daemon.returncode is None, (folder / "libvirtd.log").read_text()
            await asyncio.sleep(0.05)
    return port


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
