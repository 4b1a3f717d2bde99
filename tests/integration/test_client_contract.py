from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.client import Client
from tests.client_contract import SILENT, ClientContract
from tests.integration.cli_harness import shell, worker
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration


@pytest.fixture
async def ledger(database: Database, vhost: Vhost, tmp_path: Path) -> AsyncIterator[Client]:
    operator = shell(database, vhost).having(park_probe_max_seconds="1", hypervisor_allowed=SILENT)
    applied = await operator.run("topology", "apply")
    assert applied.status == 0, applied.err
    async with worker(operator, tmp_path), Client(vhost.url, seconds=60) as client:
        yield client


class TestClient(ClientContract):
    """The one on real servers."""
