from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from deploy.lib.processes import StackError
from deploy.lib.stack import Stack
from tests.servers import Database, Vhost, stack_folder, start_stack, temporary_stack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def _module_stack() -> Iterator[Stack]:
    with temporary_stack() as made:
        yield made


@pytest.fixture
def own_stack(_module_stack: Stack) -> Stack:
    """A stack that only these tests use, up whatever the test before has done to it."""
    return start_stack(_module_stack.folder)


def processes_below(folder: Path) -> list[str]:
    """What runs with its working directory or a command line in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = (entry / "cwd").resolve()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if folder in {place, *place.parents} or str(folder) in command:
            found.append(f"{entry.name} {command}")
    return found


async def commit_and_publish(stack: Stack) -> None:
    postgres = await asyncpg.connect(stack.postgres.url("nodeledger_owner"))
    await postgres.execute("CREATE TABLE kept AS SELECT 1 AS value")
    await postgres.close()
    connection = await aio_pika.connect(stack.rabbitmq.url())
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        stack.rabbitmq.save_queues()
        message = aio_pika.Message(b"1", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key="kept")


async def what_was_kept(stack: Stack) -> tuple[int, bytes]:
    postgres = await asyncpg.connect(stack.postgres.url("nodeledger_owner"))
    value = await postgres.fetchval("SELECT value FROM kept")
    await postgres.close()
    connection = await aio_pika.connect(stack.rabbitmq.url())
    async with connection:
        queue = await (await connection.channel()).get_queue("kept")
        message = await queue.get(timeout=10)
    return value, message.body


async def test_what_was_committed_and_confirmed_survives_a_crash_of_both_servers(own_stack: Stack) -> None:
    await commit_and_publish(own_stack)
    for server in (own_stack.postgres, own_stack.rabbitmq):
        server.stop(immediate=True)
        assert not server.running()
    start_stack(own_stack.folder)
    assert await what_was_kept(own_stack) == (1, b"1")


def test_down_leaves_no_process_and_keeps_the_ports_and_the_passwords(own_stack: Stack) -> None:
    urls = own_stack.environment()
    assert processes_below(own_stack.folder)
    own_stack.down()
    assert processes_below(own_stack.folder) == []
    assert start_stack(own_stack.folder).environment() == urls


async def test_up_again_changes_nothing_and_whoever_is_connected_stays_so(own_stack: Stack) -> None:
    postgres = await asyncpg.connect(own_stack.postgres.url("nodeledger_owner"))
    async with await aio_pika.connect(own_stack.rabbitmq.url()) as connection:
        channel = await connection.channel()
        again = await asyncio.to_thread(start_stack, own_stack.folder)
        assert again.environment() == own_stack.environment()
        assert await postgres.fetchval("SELECT 1") == 1
        await channel.declare_queue(exclusive=True)
    await postgres.close()


def test_two_stacks_run_side_by_side_and_one_goes_without_the_other(stack: Stack, own_stack: Stack) -> None:
    assert not set(stack.environment().values()) & set(own_stack.environment().values())
    own_stack.down()
    assert stack.postgres.running()
    assert stack.rabbitmq.running()


def test_a_port_taken_while_the_stack_was_down_is_replaced(own_stack: Stack) -> None:
    own_stack.down()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", own_stack.postgres.port))
        stranger.listen()
        again = start_stack(own_stack.folder)
    assert again.postgres.running()
    assert again.postgres.port != own_stack.postgres.port
    assert again.rabbitmq.port == own_stack.rabbitmq.port


def test_passwords_are_readable_by_their_owner_alone(stack: Stack) -> None:
    words = [password.encode() for password in (*stack.postgres.passwords.values(), stack.rabbitmq.password)]
    holders = {}
    for folder, _, names in os.walk(stack.folder):
        for file in (Path(folder, name) for name in names):
            with suppress(OSError):  # the servers live: a file may be gone before it is looked at
                if file.stat().st_size < 1_000_000 and any(word in file.read_bytes() for word in words):
                    holders[file] = stat.S_IMODE(file.stat().st_mode)
    assert stack.folder / "stack.json" in holders
    assert {file: oct(mode) for file, mode in holders.items() if mode & 0o077} == {}


def test_an_address_other_than_loopback_does_not_answer(stack: Stack) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))
        address = outward.getsockname()[0]
    ports = (stack.postgres.port, stack.rabbitmq.port, stack.rabbitmq.distribution_port)
    for port in ports:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, port), timeout=5)


def test_a_folder_without_a_stack_says_what_to_run() -> None:
    with stack_folder() as folder, pytest.raises(StackError, match="deploy/stack up --dir"):
        Stack.at(folder)


async def test_postgres_runs_with_its_durability_on(database: Database) -> None:
    connection = await asyncpg.connect(database.superuser_url)
    settings = ("fsync", "synchronous_commit", "full_page_writes")
    assert [await connection.fetchval("SELECT current_setting($1)", name) for name in settings] == ["on"] * 3
    await connection.close()


async def test_each_test_has_a_database_and_a_virtual_host_of_its_own(
    database: Database, empty_database: Database, vhost: Vhost
) -> None:
    with_schema = await asyncpg.connect(database.owner_url)
    without = await asyncpg.connect(empty_database.owner_url)
    assert await with_schema.fetchval("SELECT to_regnamespace('nodeledger') IS NOT NULL")
    assert await without.fetchval("SELECT to_regnamespace('nodeledger') IS NULL")
    await with_schema.close()
    await without.close()
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        queue = await (await connection.channel()).declare_queue("mine")
        assert queue.declaration_result.message_count == 0


def test_a_database_that_cannot_start_is_told_with_the_end_of_its_log(own_stack: Stack) -> None:
    own_stack.postgres.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", own_stack.postgres.port))
        taken.listen()
        with pytest.raises(StackError, match=r"(?s)postgres\.log.*Address already in use"):
            own_stack.postgres.start()
    own_stack.postgres.start()


def test_an_environment_that_is_another_checkouts_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    project = Path(__file__).parents[2]
    checkout, other = tmp_path / "checkout", tmp_path / "other"
    (checkout / "deploy" / "lib").mkdir(parents=True)
    other.mkdir()
    (checkout / "deploy/lib/install.sh").write_bytes((project / "deploy/lib/install.sh").read_bytes())
    (checkout / "uv.lock").write_text("")
    (checkout / ".venv").symlink_to(other)
    script = f". {checkout}/deploy/lib/install.sh && ensure_environment"
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert str(other) in done.stderr
    assert not list(other.iterdir())
