from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.integration.cli_harness import PROGRAM, shell
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration


@pytest.mark.timeout(120)
async def test_a_worker_that_is_told_to_stop_again_and_again_ends_well(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    port = tmp_path / "port"
    settings = shell(database, vhost).having(http_port="0", http_port_file=str(port)).environment
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(PROGRAM, "worker", env=settings, stderr=asyncio.subprocess.PIPE)
        ended = asyncio.create_task(process.communicate())
        async with asyncio.timeout(60):
            while not port.exists():  # noqa: ASYNC110 - another process: there is nothing to wait on
                await asyncio.sleep(0.02)
            while not ended.done():
                with contextlib.suppress(ProcessLookupError):
                    # Not through the process, which would take its status from who waits for it.
                    os.kill(process.pid, signal.SIGTERM)
                    os.kill(process.pid, signal.SIGINT)
                await asyncio.sleep(0.001)
        port.unlink()
        assert process.returncode == 0, ended.result()[1].decode()
