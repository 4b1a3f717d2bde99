from __future__ import annotations

import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest

from tests.client_contract import INVENTORY, SILENT, SMALL, ClientContract
from worker.testing import MemoryHypervisor, MemoryLedger


@pytest.fixture
async def ledger() -> MemoryLedger:
    return MemoryLedger()


class TestMemoryLedger(ClientContract):
    async def go_on(self, ledger: Any) -> None:
        await ledger.retry()


async def test_a_node_is_what_its_hypervisor_says_and_is_parked_while_that_says_nothing() -> None:
    host = MemoryHypervisor(INVENTORY)
    ledger = MemoryLedger({SILENT: host}, seconds=0)
    assert (await ledger.node_put("cn-1", hypervisor=SILENT)).usage["memory_mib"].capacity == 16384 - 512
    instance = uuid4()
    assert (await ledger.claim("cn-1", instance, **SMALL)).status == "applied"
    host.answers = False
    with pytest.raises(TimeoutError):
        await ledger.delete("cn-1", instance)
    host.answers = True
    await ledger.retry()
    assert (await ledger.claim("cn-1", uuid4(), **SMALL)).usage["vcpus"].used == 1


BLOCKED = ("aio_pika", "aiohttp", "asyncpg", "libvirt", "structlog", "typer", "rich", "prometheus_client", "uvloop")


@pytest.mark.parametrize(
    ("module", "allowed"), [("schemas", ()), ("worker.testing", ()), ("schemas.client", ("aio_pika",))]
)
def test_each_imports_with_what_it_says_it_needs(module: str, allowed: tuple[str, ...]) -> None:
    blocked = [name for name in (*BLOCKED, "pydantic_settings", "defusedxml") if name not in allowed]
    program = f"import sys\nfor name in {blocked!r}:\n    sys.modules[name] = None\nimport {module}\n"
    program += "" if module == "worker.testing" else "assert 'worker' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True)
