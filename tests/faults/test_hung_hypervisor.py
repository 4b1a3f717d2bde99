from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy.lib.stack import Stack
from tests.driver.run import Run, pool
from tests.driver.traffic import body_of, publish
from tests.integration.cli_harness import INVENTORY
from tests.servers import Database, Vhost

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HUNG = "cn-hung"
OTHERS = [f"cn-{number}" for number in range(8)]
DEADLINE_SECONDS = 1.0
PROBES = 400
PER_SECOND = 100
POLICY = {"ratios": {"vcpus": "1000.0"}, "verify_deletes": False}


def command(kind: str, node: str, **fields: Any) -> dict[str, Any]:
    return {"version": 1, "id": str(uuid4()), "kind": kind, "node": node, "issued_at": "2026-01-01T00:00:00Z", **fields}


def claim(node: str, instance: str | None = None) -> dict[str, Any]:
    resources = {"vcpus": 1, "memory_mib": 1}
    return command("claim", node, instance=instance or str(uuid4()), project="acme", resources=resources)


@asynccontextmanager
async def silence() -> AsyncIterator[int]:
    """The port of something that accepts connections and never says a word."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: held.append(writer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in held:
            writer.transport.abort()


async def answered(run: Run, commands: Sequence[dict[str, Any]], status: Callable[[str], bool], seconds: float) -> bool:
    """Whether each of the commands gets an outcome of a certain kind in time."""
    ids = {one["id"] for one in commands}
    return await run.listener.until(
        lambda: ids <= {name for _, name, said, _ in run.listener.heard if status(said)}, seconds
    )


async def p99(run: Run) -> float:
    """How long 99 of 100 claims on healthy nodes take from sending to outcome, in seconds, at a steady pace."""
    probes = [claim(OTHERS[number % len(OTHERS)]) for number in range(PROBES)]
    sent: dict[str, float] = {}
    for at in range(0, PROBES, 10):
        some = probes[at : at + 10]
        sent |= dict.fromkeys((one["id"] for one in some), time.monotonic())
        await publish(run.vhost.url, [body_of(one) for one in some])
        await asyncio.sleep(10 / PER_SECOND)
    assert await answered(run, probes, lambda status: status == "applied", 60)
    took = sorted(at - sent[name] for at, name, _, _ in run.listener.heard if name in sent)
    return took[int(len(took) * 0.99)]


async def test_a_hung_hypervisor_parks_its_node_in_order_and_delays_no_other(
    stack: Stack, vhost: Vhost, database: Database, tmp_path: Path
) -> None:
    settings = {
        "hypervisor_allowed": "qemu+tcp://127.0.0.1:*/system test:///default",
        "hypervisor_deadline_seconds": str(DEADLINE_SECONDS),
        "park_probe_max_seconds": "2",
    }
    async with silence() as port, pool(stack, vhost, database, tmp_path, 2, **settings) as run:
        puts = [command("node.put", node, inventory=INVENTORY, policy=POLICY) for node in OTHERS]
        await publish(vhost.url, [body_of(one) for one in puts])
        assert await answered(run, puts, lambda status: status == "applied", 60)
        calm = await p99(run)

        hung = command("node.put", HUNG, hypervisor=f"qemu+tcp://127.0.0.1:{port}/system", policy=POLICY)
        guests = [str(uuid4()) for _ in range(30)]
        waiting = [claim(HUNG, guest) for guest in guests]
        waiting += [command("delete", HUNG, instance=guest) for guest in guests[::2]]
        await publish(vhost.url, [body_of(one) for one in (hung, *waiting)])
        assert await answered(run, [hung], lambda status: status == "applied", 30)
        began = time.monotonic()
        assert await answered(run, waiting, lambda status: status == "parked", 30)
        parked = time.monotonic() - began
        beside = await p99(run)

        back = command("node.put", HUNG, hypervisor="test:///default", policy=POLICY)
        await publish(vhost.url, [body_of(back)])
        assert await answered(run, waiting, lambda status: status == "applied", 60)
        ids = {one["id"] for one in waiting}
        order = [name for _, name, status, _ in run.listener.heard if name in ids and status == "applied"]
        assert list(dict.fromkeys(order)) == [one["id"] for one in waiting]
        assert (await run.operator.run("verify")).status == 0
        (tmp_path / "figures").write_text(
            f"p99 {1000 * calm:.0f} ms without, {1000 * beside:.0f} ms beside; all parked after {parked:.2f} s\n"
        )
        assert beside < 2 * calm + 0.1, "far more than the tenth that is wanted, for machines that do other things too"
