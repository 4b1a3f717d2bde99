"""No password is ever shown: not in logs at any level, not in errors, titles, dead letters, pages or answers."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from yarl import URL

from tests.integration.cli_harness import DEADLINE_SECONDS, PROGRAM, Shell, put, shell, worker
from tests.integration.security_harness import read_until
from tests.servers import Database, Vhost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WRONG = "hunter2-wrong"
COMMANDS = (
    ("doctor",),
    ("db", "check"),
    ("db", "upgrade"),
    ("topology", "check"),
    ("verify",),
    ("dead", "list"),
    ("--debug", "verify"),
    ("--debug", "topology", "check"),
)


def wrongly(url: str, password: str = WRONG) -> str:
    return str(URL(url).with_password(password))


async def test_wrong_passwords_are_told_without_being_shown(database: Database, vhost: Vhost) -> None:
    operator = shell(database, vhost).having(
        amqp_url=wrongly(vhost.url),
        database_url=wrongly(database.worker_url),
        database_owner_url=wrongly(database.owner_url),
        database_reader_url=wrongly(database.reader_url),
    )
    for command in COMMANDS:
        ended = await operator.run(*command)
        assert ended.status != 0, command
        assert ended.err or ended.out, command
        assert WRONG not in ended.out + ended.err, command


async def test_a_worker_that_is_not_let_in_shows_no_password_at_debug_level(
    database: Database, vhost: Vhost, tmp_path: Path
) -> None:
    right = URL(vhost.url).password or ""
    for settings in ({"database_url": wrongly(database.worker_url)}, {"amqp_url": wrongly(vhost.url)}):
        log = tmp_path / f"{uuid4()}.log"
        operator = shell(database, vhost).having(log_level="debug", http_port="0", **settings)
        said = await _until_it_complains(operator, log)
        assert "hunter2" not in said
        assert right not in said


async def _until_it_complains(operator: Shell, log: Path) -> str:
    """What a worker logs until it has tried to connect and failed; meanwhile its title is looked at."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "worker", env=operator.environment, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not any(sign in _text(log) for sign in ("ACCESS_REFUSED", "password authentication failed")):
                assert process.returncode is None, _text(log)
                await asyncio.sleep(0.05)
        assert "://" not in _text(Path(f"/proc/{process.pid}/cmdline"))
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    return _text(log)


def _text(file: Path) -> str:
    return file.read_text()


async def test_nothing_that_a_worker_says_holds_its_passwords(database: Database, vhost: Vhost, tmp_path: Path) -> None:
    operator = shell(database, vhost).having(log_level="debug")
    credentials = "qemu+ssh://root:hunter2@cn-1/system"
    async with worker(operator, tmp_path) as address:
        refused = await operator.send({"kind": "node.put", "node": "cn-1", "hypervisor": credentials}, put("cn-2"))
        bad = f'{{"node": "cn-1", "kind": "node.put", "hypervisor": "{credentials}", "password": "hunter2"}}\n'
        assert (await operator.run("send", "--raw", "-", text=bad)).status == 0
        letter = await read_until(database, "SELECT id FROM nodeledger.dead_letter_view")
        listed = await operator.run("dead", "list")
        doctor = await operator.run("doctor")
        async with aiohttp.ClientSession() as http:
            pages = [await (await http.get(address + path)).text() for path in ("/readyz", "/metrics", "/v1/nodes")]
    secrets = {URL(url).password or "" for url in (vhost.url, database.worker_url, database.owner_url)}
    shown = [
        (tmp_path / "worker.log").read_text(),
        refused.out,
        refused.err,
        listed.out,
        doctor.out,
        doctor.err,
        *pages,
    ]
    assert letter
    for text in shown:
        assert not [secret for secret in {*secrets, "hunter2"} if secret in text], text


async def test_a_secret_may_come_from_a_file_that_no_process_title_shows(database: Database, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text(f"{database.worker_url}\n")
    given = {name: text for name, text in shell(database).environment.items() if "DATABASE" not in name}
    ended = await Shell({**given, "NODELEDGER_DATABASE_URL_FILE": str(secret)}).run("verify")
    assert ended.status == 0, ended
