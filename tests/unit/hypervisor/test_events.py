from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import libvirt
import pytest

from worker.engine.ports import HypervisorUnreachable
from worker.hypervisor import Hypervisors
from worker.hypervisor.connection import Connection
from worker.hypervisor.knocking import answers

PATIENCE_SECONDS = 60


class Heard:
    """What is told of hypervisors, and a wait for it."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.silent: list[str] = []
        self.back: list[str] = []
        self._something = asyncio.Event()

    def happened(self, node: str) -> None:
        self.nodes.append(node)
        self._something.set()

    def fell_silent(self, node: str, _uri: str, _detail: str) -> None:
        self.silent.append(node)

    def came_back(self, node: str, _uri: str) -> None:
        self.back.append(node)

    async def something(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._something.wait()
        self._something.clear()


@pytest.fixture
def host(tmp_path: Path) -> str:
    """A host of libvirt's test driver with a domain that runs; this process alone has it, as long as it has it open."""
    domain = "<domain type='test'><name>one</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    file = tmp_path / "node.xml"
    file.write_text(f"<node>{domain}</node>")
    return f"test://{file}"


@asynccontextmanager
async def listening(allowed: str, uri: str) -> AsyncIterator[tuple[Hypervisors, Heard]]:
    pool, heard = Hypervisors(allowed=[allowed]), Heard()
    pool.report_to(heard)
    try:
        assert pool.watch("cn-1", uri)
        await pool.inventory("cn-1", uri)
        yield pool, heard
    finally:
        await pool.close()


def raw(pool: Hypervisors) -> Any:
    connection = pool._links["cn-1"]._connection
    assert connection is not None
    return connection._connection


@pytest.mark.parametrize("change", ["destroy", "undefine", "create"])
async def test_a_domain_that_stops_starts_or_goes_is_told(host: str, change: str) -> None:
    async with listening(host, host) as (pool, heard):
        domain = raw(pool).lookupByName("one")
        if change in {"create", "undefine"}:
            domain.destroy()
            await heard.something()
        heard.nodes.clear()
        await asyncio.to_thread(getattr(domain, change))
        await heard.something()
        assert set(heard.nodes) == {"cn-1"}


async def test_nothing_is_told_of_a_node_that_is_watched_no_more_and_its_connection_is_given_up(host: str) -> None:
    async with listening(host, host) as (pool, heard):
        connection = raw(pool)
        domain = connection.lookupByName("one")
        link = pool._links["cn-1"]
        pool.unwatch("cn-1")
        closing = link.hang_up()
        if closing is not None:
            await closing.answer
        assert link._connection is None
        heard.nodes.clear()
        domain.destroy()
        other = libvirt.open("test:///default")  # its events come through the same thread, after those before it
        told = threading.Event()
        number = other.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda *_: told.set(), None)
        running = other.createXML(
            "<domain type='test'><name>x</name><memory>65536</memory><os><type>hvm</type></os></domain>"
        )
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
        running.destroy()
        other.domainEventDeregisterAny(number)
        other.close()
        assert heard.nodes == []


async def test_a_closed_connection_is_really_closed_though_it_was_listened_to(host: str) -> None:
    """A callback that stays registered keeps libvirt's connection open: closing answers how many still hold it."""
    connection = Connection(host)
    inner = connection._connection
    assert connection.listen(lambda: None)
    left: list[int] = []
    close = inner.close

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        def close(self) -> None:
            left.append(close())

    connection._connection = Counting()
    connection.close()
    gc.collect()
    assert left == [0]


async def test_a_watched_connection_is_not_closed_for_being_idle(host: str) -> None:
    async with listening(host, host) as (pool, _):
        pool._links["cn-1"].last_used = float("-inf")
        watched = pool._links["cn-1"].heard
        assert watched is not None


async def test_a_host_is_told_to_be_silent_once_and_to_be_back_once(tmp_path: Path) -> None:
    file = tmp_path / "node.xml"
    uri = f"test://{file}"
    pool, heard = Hypervisors(allowed=[uri]), Heard()
    pool.report_to(heard)
    for _ in range(3):
        with pytest.raises(HypervisorUnreachable):
            await pool.inventory("cn-1", uri)
        assert await pool.knock("cn-1")
    assert (heard.silent, heard.back) == (["cn-1"], [])
    file.write_text("<node/>")
    assert await pool.knock("cn-1"), "an address without a port may be asked again at once"
    await pool.inventory("cn-1", uri)
    await pool.inventory("cn-1", uri)
    await pool.close()
    assert (heard.silent, heard.back) == (["cn-1"], ["cn-1"])


async def test_knocking_tells_a_port_that_listens_from_one_that_does_not() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await answers(f"qemu+tls://127.0.0.1:{port}/system")
    server.close()
    await server.wait_closed()
    assert not await answers(f"qemu+tls://127.0.0.1:{port}/system")
    assert await answers("qemu:///system")
