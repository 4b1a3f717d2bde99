"""Real servers for tests: a private stack, and on it a database and a virtual host for each test alone."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import asyncpg

from deploy.lib.stack import Stack
from worker.ledger.migrate import migrations, upgrade

DEPLOY_STACK = Path(__file__).parents[1] / "deploy" / "stack"
TEMPLATE = "nodeledger_template_" + sha256("".join(step.checksum for step in migrations()).encode()).hexdigest()[:12]
"""Named after the schema, so that a stack that stays up follows it."""


@dataclass(frozen=True, slots=True)
class Database:
    """One test's database, as each role sees it."""

    name: str
    owner_url: str
    worker_url: str
    reader_url: str
    superuser_url: str


@dataclass(frozen=True, slots=True)
class Vhost:
    """One test's virtual host, without exchanges or queues of the product's."""

    name: str
    url: str


def start_stack(folder: Path) -> Stack:
    """What `deploy/stack up` makes; quick if it runs already."""
    subprocess.run([DEPLOY_STACK, "up", "--dir", folder], check=True)
    return Stack.at(folder)


@contextmanager
def temporary_stack() -> Iterator[Stack]:
    """A stack for one purpose, gone with all its data afterwards."""
    with stack_folder() as folder:
        yield start_stack(folder)


@contextmanager
def stack_folder() -> Iterator[Path]:
    """A folder in which a stack may be started; whatever runs there at the end is stopped."""
    folder = Path(tempfile.mkdtemp(prefix="nodeledger-stack-"))
    folder.chmod(0o711)  # the servers' own user has to pass through
    try:
        yield folder
    finally:
        if (folder / "stack.json").exists():
            Stack.at(folder).down()
        shutil.rmtree(folder)


@asynccontextmanager
async def new_database(stack: Stack, *, schema: bool = True) -> AsyncIterator[Database]:
    """A database with the product's schema, or an empty one; dropped at the end, open connections or not."""
    name = f"test_{uuid4().hex}"
    postgres = stack.postgres
    connection = await asyncpg.connect(postgres.url("postgres", "postgres"))
    try:
        template = await _template(stack, connection) if schema else "template1"
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER nodeledger_owner")
        await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO nodeledger_worker, nodeledger_reader")
    finally:
        await connection.close()
    try:
        yield Database(
            name=name,
            owner_url=postgres.url("nodeledger_owner", name),
            worker_url=postgres.url("nodeledger_worker", name),
            reader_url=postgres.url("nodeledger_reader", name),
            superuser_url=postgres.url("postgres", name),
        )
    finally:
        connection = await asyncpg.connect(postgres.url("postgres", "postgres"))
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


@contextmanager
def new_vhost(stack: Stack) -> Iterator[Vhost]:
    """A virtual host, removed with its queues and connections at the end."""
    name = f"test-{uuid4().hex}"
    yield Vhost(name, stack.rabbitmq.add_vhost(name))
    stack.rabbitmq.delete_vhost(name)


async def _template(stack: Stack, connection: asyncpg.Connection) -> str:
    """The database that has the schema and that the tests' own are copied from; made once in a stack."""
    descriptor = os.open(stack.folder / "stack.json", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", TEMPLATE):
            draft = f"{TEMPLATE}_draft"
            await connection.execute(f"DROP DATABASE IF EXISTS {draft}")
            await connection.execute(f"CREATE DATABASE {draft} OWNER nodeledger_owner")
            owner = await asyncpg.connect(stack.postgres.url("nodeledger_owner", draft))
            await upgrade(owner)
            await owner.close()
            await connection.execute(f"ALTER DATABASE {draft} RENAME TO {TEMPLATE}")
    finally:
        os.close(descriptor)
    return TEMPLATE
