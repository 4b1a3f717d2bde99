from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TypeVar
from uuid import UUID, uuid4

import libvirt
import pytest
from structlog.testing import capture_logs

from worker.engine.inquiries import observe
from worker.engine.ports import HypervisorUnreachable
from worker.hypervisor import Hypervisors
from worker.hypervisor.connection import ConnectionLost, reach

T = TypeVar("T")

TEST = "test:///default"
ALLOWED = (TEST, "qemu+tcp://127.0.0.1:*/system", "test+tcp://127.0.0.1:*/default", "test:///*/*/*/*/*.xml")
PATIENCE = 20.0
LIBVIRTD = shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def hypervisors(
    deadline: float = 5.0, threads: int = 64, results: list[str] | None = None
) -> AsyncIterator[Hypervisors]:
    """The pool under test; `results` gathers what came of its calls."""
    heard = [] if results is None else results
    made = Hypervisors(
        allowed=ALLOWED,
        deadline_seconds=deadline,
        threads=threads,
        observe=lambda _call, result, _seconds: heard.append(result),
    )
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@contextmanager
def mute_server() -> Iterator[str]:
    """A server that accepts and never answers: the kernel accepts, and nobody reads."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=4096)) as listener:
        yield f"qemu+tcp://127.0.0.1:{listener.getsockname()[1]}/system"


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the hypervisor answers."""
    deadline = monotonic() + PATIENCE
    while True:
        try:
            return await ask()
        except HypervisorUnreachable:
            if monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def unreachable(asked: Awaitable[object]) -> str:
    """What is said of a hypervisor that is not reached."""
    with pytest.raises(HypervisorUnreachable) as caught:
        await asked
    return caught.value.detail


async def test_a_host_is_read_and_an_unchanged_one_is_the_same_object() -> None:
    async with hypervisors() as pool:
        inventory = await pool.inventory("cn-1", TEST)
        assert (inventory.cpus, inventory.memory_mib, inventory.disk_gib) == ("0-15", 3072, 100)
        assert [(cell.id, cell.cpus, cell.memory_mib) for cell in inventory.cells] == [
            (0, "0-7", 2048),
            (1, "8-15", 4096),
        ]
        assert await pool.inventory("cn-1", TEST) is inventory
        assert await pool.inventory("cn-2", TEST) is inventory


async def test_a_private_test_host_has_the_cpus_and_memory_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "node.xml"
    file.write_text(
        "<node><cpu><mhz>2000</mhz><model>x</model><active>64</active><nodes>2</nodes><sockets>1</sockets>"
        "<cores>16</cores><threads>2</threads></cpu><memory>268435456</memory></node>"
    )
    pool = Hypervisors(allowed=[f"test://{tmp_path}/*.xml"])
    inventory = await pool.inventory("cn-1", f"test://{file}")
    await pool.close()
    assert (inventory.cpus, inventory.memory_mib) == ("0-63", 262_144)


async def test_what_a_host_tells_and_cannot_be_used_is_logged_once(tmp_path: Path) -> None:
    file = tmp_path / "node.xml"
    pools = "".join(
        f"<pool type='{kind}'><name>{kind}-pool</name><source>{source}</source>"
        f"<target><path>/x/{kind}</path></target></pool>"
        for kind, source in (("dir", ""), ("logical", "<device path='/dev/sdb'/><name>vg</name>"))
    )
    file.write_text(f"<node>{pools}</node>")
    pool = Hypervisors(allowed=[f"test://{tmp_path}/*.xml"])
    with capture_logs() as logs:
        for _ in range(3):
            inventory = await pool.inventory("cn-1", f"test://{file}")
    await pool.close()
    (oddity,) = inventory.oddities
    assert "may lie in the pool" in oddity
    assert [(line["node"], line["left_out"], line["log_level"]) for line in logs] == [("cn-1", [oddity], "warning")]


async def test_senders_are_told_the_same_whatever_keeps_a_hypervisor_from_answering_and_the_log_says_what() -> None:
    with mute_server() as silent, capture_logs() as logs:
        closed = "qemu+tcp://127.0.0.1:1/system"
        async with hypervisors(deadline=0.3) as pool:
            for address in (silent, closed, "qemu:///session"):
                for _ in range(2):
                    heard = await observe(pool, "cn-1", address)
                    assert heard.inventory is None
                    assert heard.detail == "the hypervisor of cn-1 does not answer"
    assert [(line["node"], line["address"]) for line in logs] == [("cn-1", silent), ("cn-1", closed)]
    assert logs[0]["error"] == "no answer within 0.3 s"
    assert "Connection refused" in logs[1]["error"]


async def test_an_address_that_is_not_allowed_is_never_opened() -> None:
    async with hypervisors() as pool:
        assert "allowed" in await unreachable(pool.inventory("cn-1", "qemu:///session"))


@pytest.fixture
def domain() -> Iterator[libvirt.virDomain]:
    connection = libvirt.open(TEST)
    made = connection.defineXML(
        f"<domain type='test'><name>{uuid4()}</name><uuid>{uuid4()}</uuid><memory unit='MiB'>64</memory>"
        "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='3'/></cputune><os><type>hvm</type></os></domain>"
    )
    yield made
    with contextlib.suppress(libvirt.libvirtError):
        made.destroy()
    with contextlib.suppress(libvirt.libvirtError):
        made.undefine()
    connection.close()


async def test_a_domain_is_shut_off_or_runs_or_is_absent(domain: libvirt.virDomain) -> None:
    instance = UUID(domain.UUIDString())
    async with hypervisors() as pool:
        assert await pool.domain_state("cn-1", TEST, instance) == "shut_off"
        domain.create()
        assert await pool.domain_state("cn-1", TEST, instance) == "running"
        domain.suspend()
        assert await pool.domain_state("cn-1", TEST, instance) == "running"
        domain.destroy()
        domain.undefine()
        assert await pool.domain_state("cn-1", TEST, instance) == "absent"


async def test_all_domains_are_listed_with_what_they_use(domain: libvirt.virDomain) -> None:
    domain.create()
    async with hypervisors() as pool:
        found = {listed.uuid: listed for listed in await pool.domains("cn-1", TEST)}
    listed = found[UUID(domain.UUIDString())]
    assert (listed.name, listed.active, listed.vcpus, listed.memory_mib) == (domain.name(), True, 2, 64)
    assert set(listed.vcpu_cpus.values()) == {frozenset({3})}


async def test_a_refused_connection_says_so_and_is_not_tried_again_at_once() -> None:
    with mute_server() as uri:
        pass
    results: list[str] = []
    async with hypervisors(results=results) as pool:
        said = await unreachable(pool.inventory("cn-1", uri))
        assert "refused" in said
        assert await unreachable(pool.inventory("cn-1", uri)) == said
    assert results == ["failed", "refused"]


def test_a_host_that_is_down_is_known_for_it_by_the_deadline() -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full, ExitStack() as crowd:
        # Once its queue is full, whoever knocks hears nothing, as from a host that is off.
        for _ in range(4):
            knocking = crowd.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(full.getsockname())
        began = monotonic()
        with pytest.raises(ConnectionLost, match="timed out"):
            reach(f"qemu+tls://127.0.0.1:{full.getsockname()[1]}/system", timeout_seconds=0.2)
        assert monotonic() - began < PATIENCE, "the kernel gives up after two minutes"


@pytest.mark.parametrize("uri", ["qemu:///system", "test:///default", "qemu+ssh://root@nowhere.invalid/system"])
def test_only_what_listens_on_a_known_port_is_knocked_at_first(uri: str) -> None:
    reach(uri, timeout_seconds=0.2)


async def test_a_server_that_never_answers_costs_one_deadline_and_then_nothing() -> None:
    results: list[str] = []
    async with hypervisors(deadline=0.3, results=results) as pool:
        with mute_server() as uri:
            assert await unreachable(pool.inventory("dead", uri)) == "no answer within 0.3 s"
            for _ in range(10):
                assert "not returned" in await unreachable(pool.domain_state("dead", uri, uuid4()))
            assert (pool.stuck_calls, pool.unreachable_nodes) == (1, 1)
    assert results == ["deadline", *["refused"] * 10]


async def test_a_node_whose_call_hangs_is_asked_again_only_when_the_call_has_returned() -> None:
    async with hypervisors(deadline=0.2) as pool:
        with mute_server() as uri:
            await unreachable(pool.inventory("dead", uri))
        # The server is gone: the hung call fails by itself, and what is asked now is a new connection.
        deadline = monotonic() + PATIENCE
        said = "not returned"
        while "not returned" in said and monotonic() < deadline:
            said = await unreachable(pool.inventory("dead", uri))
            await asyncio.sleep(0.02)
        assert "not returned" not in said


async def test_hundreds_of_hung_nodes_do_not_delay_the_others() -> None:
    async with hypervisors(deadline=2.0, threads=8) as pool:
        await pool.inventory("well", TEST)
        with mute_server() as uri:
            hung = [asyncio.create_task(unreachable(pool.inventory(f"dead-{n}", uri))) for n in range(200)]
            waits = []
            while not all(task.done() for task in hung):
                began = monotonic()
                await pool.inventory("well", TEST)
                waits.append(monotonic() - began)
                await asyncio.sleep(0.005)
            await asyncio.gather(*hung)
            for _ in range(20):
                began = monotonic()
                await pool.inventory("well", TEST)
                waits.append(monotonic() - began)
            assert statistics.median(waits) < 0.5, "a hung node costs two seconds"


async def test_closing_does_not_wait_for_what_hangs() -> None:
    with mute_server() as uri:
        async with hypervisors(deadline=0.1) as pool:
            await pool.inventory("well", TEST)
            await unreachable(pool.inventory("dead", uri))
            began = monotonic()
        assert monotonic() - began < PATIENCE, "what hangs never returns"


class Daemon:
    """A libvirt daemon of the test's own, with the test driver behind real sockets."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.uri = f"test+tcp://127.0.0.1:{self.port}/default"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "libvirtd.conf").write_text(
            f'listen_tls = 0\nlisten_tcp = 1\nlisten_addr = "127.0.0.1"\ntcp_port = "{self.port}"\nauth_tcp = "none"\n'
        )
        folder.chmod(0o777)

    async def start(self) -> None:
        arguments = [str(LIBVIRTD), "--listen", "--config", f"{self._folder}/libvirtd.conf"]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it only starts
            [*arguments, "--pid-file", f"{self._folder}/pid"],
            stderr=subprocess.DEVNULL,
            env={"HOME": str(self._folder), "XDG_RUNTIME_DIR": str(self._folder), "PATH": os.environ["PATH"]},
            user="nobody" if os.geteuid() == 0 else None,
        )
        deadline = monotonic() + PATIENCE
        while monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            await asyncio.sleep(0.05)
        raise TimeoutError

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    if LIBVIRTD is None:
        pytest.skip("needs libvirtd: Debian's package libvirt-daemon")
    with TemporaryDirectory(prefix="libvirtd-") as folder:
        made = Daemon(Path(folder))
        try:
            await made.start()
            yield made
        finally:
            made.send(signal.SIGKILL)


async def test_a_connection_that_died_is_replaced_within_the_call(daemon: Daemon) -> None:
    async with hypervisors() as pool:
        inventory = await pool.inventory("cn-1", daemon.uri)
        daemon.send(signal.SIGKILL)
        await daemon.start()
        assert await pool.inventory("cn-1", daemon.uri) is inventory


async def test_a_daemon_that_was_away_is_found_again(daemon: Daemon) -> None:
    async with hypervisors() as pool:
        await pool.inventory("cn-1", daemon.uri)
        daemon.send(signal.SIGKILL)
        await unreachable(pool.inventory("cn-1", daemon.uri))
        await daemon.start()
        assert (await eventually(lambda: pool.inventory("cn-1", daemon.uri))).cpus == "0-15"


async def test_a_daemon_that_hangs_costs_one_deadline_and_answers_again_when_it_wakes(daemon: Daemon) -> None:
    results: list[str] = []
    async with hypervisors(deadline=0.3, results=results) as pool:
        inventory = await pool.inventory("cn-1", daemon.uri)
        daemon.send(signal.SIGSTOP)
        assert await unreachable(pool.inventory("cn-1", daemon.uri)) == "no answer within 0.3 s"
        await unreachable(pool.inventory("cn-1", daemon.uri))
        assert results[-2:] == ["deadline", "refused"]
        daemon.send(signal.SIGCONT)
        assert await eventually(lambda: pool.inventory("cn-1", daemon.uri)) is inventory
