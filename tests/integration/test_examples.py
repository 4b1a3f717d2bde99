"""What the pages and `deploy/examples` show runs as it is printed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli_harness import Shell, put, shell, worker
from tests.servers import Database, Vhost

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "deploy" / "examples"
NODE = shutil.which("node")
SECONDS = 120


def programs(page: str) -> list[str]:
    """The whole programs in Python that a page shows."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)
    return [block for block in blocks if "asyncio.run(" in block or "SyncClient() as" in block]


async def run(operator: Shell, *command: str | Path) -> tuple[int, str, str]:
    """Run a program in an operator's environment to its end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env={**operator.environment, "PYTHONPATH": str(PROJECT)}, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("page", ["README.md", "schemas/README.md"])
async def test_the_programs_of_a_page_run_as_printed(
    page: str, database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    assert (await operator.run("topology", "apply")).status == 0
    shown = programs(page)
    assert shown
    async with worker(operator, tmp_path):
        assert (await operator.send(put("cn-017"))).status == 0
        for program in shown:
            status, out, err = await run(operator, sys.executable, "-W", "error", "-c", program)
            assert (status, err) == (0, ""), program
            assert "applied" in out


@pytest.fixture
def javascript(tmp_path: Path) -> Path:
    """The example in JavaScript with the package that it needs."""
    if NODE is None or shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    program = tmp_path / "javascript"
    shutil.copytree(EXAMPLES, program)
    install = ["npm", "install", "--no-audit", "--no-fund", "--cache", str(tmp_path / "cache")]
    installed = subprocess.run(install, cwd=program, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install amqplib here: {installed.stderr[-200:]}")
    return program / "claim.mjs"


@pytest.mark.timeout(400)
async def test_the_example_in_javascript_claims_and_tells_why_it_cannot(
    javascript: Path, database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    operator = shell(database, vhost)
    assert (await operator.run("topology", "apply")).status == 0
    async with worker(operator, tmp_path):
        assert (await operator.send(put("cn-017"))).status == 0
        status, out, err = await run(operator, str(NODE), javascript, "cn-017", "2", "512")
        assert (status, err) == (0, "")
        assert json.loads(out)["usage"]["vcpus"]["used"] == 2
        status, out, _ = await run(operator, str(NODE), javascript, "cn-017", "500")
        assert (status, json.loads(out)["reasons"][0]["code"]) == (1, "insufficient")
