from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from worker.telemetry.http import StatusServer
from worker.telemetry.metrics import Metrics


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def base(problems: list[str], metrics: Metrics) -> AsyncIterator[str]:
    server = StatusServer(metrics.registry, lambda: problems)
    port = await server.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}"
    await server.close()


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_readiness_follows_the_problems_and_liveness_does_not(base: str, problems: list[str]) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/readyz") as ready:
            assert (ready.status, await ready.json()) == (200, {"ready": True, "problems": []})
        problems.append("the database does not answer")
        async with session.get(f"{base}/readyz") as unready:
            assert (unready.status, await unready.json()) == (503, {"ready": False, "problems": problems})
        async with session.get(f"{base}/livez") as alive:
            assert alive.status == 200
            assert "Server" not in alive.headers, "nobody needs to know whose and which version it is"


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_metrics_are_given_in_the_form_that_is_asked_for(base: str, metrics: Metrics, accept: str) -> None:
    metrics.follow("commands_received", "Messages taken.", lambda: 7)
    async with aiohttp.ClientSession(headers={"Accept": accept}) as session, session.get(f"{base}/metrics") as page:
        assert page.headers["Content-Type"].startswith(accept.partition(";")[0])
        assert "nodeledger_commands_received_total 7.0" in await page.text()


async def test_the_port_in_use_is_written_for_those_who_asked_for_any(tmp_path: Path, metrics: Metrics) -> None:
    server = StatusServer(metrics.registry, list)
    port = await server.start("127.0.0.1", 0, tmp_path / "port")
    assert {file.name: file.read_text() for file in files(tmp_path)} == {"port": f"{port}\n"}
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_that_is_taken_is_an_error_that_leaves_nothing_open(base: str, metrics: Metrics) -> None:
    server = StatusServer(metrics.registry, list)
    with pytest.raises(OSError, match="address"):
        await server.start("127.0.0.1", int(base.rpartition(":")[2]))
    await server.close()


async def get(port: int, *headers: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("".join(f"{line}\r\n" for line in ("GET /livez HTTP/1.1", *headers, "Connection: close", "")).encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", b"200"),
        ("[::1]:9464", b"200"),
        ("[::1]", b"200"),
        ("LOCALHOST", b"200"),
        (socket.gethostname(), b"200"),
        ("ledger.example.org:80", b"200"),
        ("attacker.example.org:9464", b"421"),
        ("ledger.example.org.attacker.example", b"421"),
        ("127.0.0.1.attacker.example", b"421"),
        ("", b"421"),
    ],
)
async def test_only_known_names_are_answered(metrics: Metrics, host: str, status: bytes) -> None:
    server = StatusServer(metrics.registry, list, names=["ledger.example.org"])
    port = await server.start("127.0.0.1", 0)
    assert (await get(port, f"Host: {host}")).split()[1] == status
    await server.close()


async def test_a_request_without_a_host_comes_from_no_browser(metrics: Metrics) -> None:
    server = StatusServer(metrics.registry, list)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
    assert b" 200 " in await reader.readline()
    writer.close()
    await server.close()


async def test_a_request_whose_head_does_not_come_is_ended(metrics: Metrics) -> None:
    server = StatusServer(metrics.registry, list, head_seconds=0.05)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    await server.close()


async def test_half_sent_requests_keep_nobody_from_being_answered(metrics: Metrics) -> None:
    server = StatusServer(metrics.registry, list, connections=4, head_seconds=600)
    port = await server.start("127.0.0.1", 0)
    hanging = []
    for _ in range(12):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: ")
        hanging.append((reader, writer))
    async with asyncio.timeout(30):
        assert b" 200 " in await get(port, "Host: localhost")
        for reader, _ in hanging[:8]:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b"", "the oldest make room"
    for _, writer in hanging:
        writer.close()
    await server.close()
