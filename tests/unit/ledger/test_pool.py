from __future__ import annotations

import socket
from typing import Any

import asyncpg
import pytest

from worker.ledger.pool import Servers, single_addresses

URL = "postgresql://u:p%2C@h1:5432,[::1]:5433,h3/db?target_session_attrs=read-write"


def test_an_address_of_several_servers_is_one_of_each() -> None:
    end = "/db?target_session_attrs=read-write"
    assert single_addresses(URL) == [f"postgresql://u:p%2C@{host}{end}" for host in ("h1:5432", "[::1]:5433", "h3")]
    for one in ("postgresql://u:p@h/db", "postgresql:///db?host=/run/postgresql", "postgres://h"):
        assert single_addresses(one) == [one]


async def test_a_silent_server_has_only_its_share_of_the_time_and_is_asked_last_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    real = asyncpg.connect

    async def connect(url: str, **options: Any) -> object:
        asked.append(url.partition("@")[2])
        return "connected" if "h2" in url else await real(url, **options)

    monkeypatch.setattr(asyncpg, "connect", connect)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        servers = Servers(f"postgresql://u:p@127.0.0.1:{port},h2:1/db")
        for _ in range(2):
            connection: object = await servers.connect(timeout=0.4)
            assert connection == "connected"
    assert asked == [f"127.0.0.1:{port}/db", "h2:1/db", "h2:1/db"]


async def test_what_the_last_server_said_is_told_when_none_lets_us_in() -> None:
    with pytest.raises(OSError, match="Connect call failed"):
        await Servers("postgresql://u:p@127.0.0.1:1,127.0.0.1:2/db").connect(timeout=5)
