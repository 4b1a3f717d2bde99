from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.lib.postgres import LOGINS, SUPERUSER, Postgres, program_folders
from deploy.lib.processes import Account, free_port
from deploy.lib.stack import SERVER_USER
from tests.certificates import FOR_LOCALHOST, Authority
from tests.integration.cli_harness import Ended, Shell, shell
from tests.servers import Database

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# The name in a client's certificate must be that of its role; nobody comes in without encryption.
ACCESS = """\
hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full
host all postgres 127.0.0.1/32 scram-sha-256
"""


@pytest.fixture
def certificates(tmp_path: Path) -> Authority:
    return Authority(tmp_path).create()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's own user can enter."""
    with tempfile.TemporaryDirectory(prefix="nodeledger-tls-") as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
async def server(certificates: Authority, folder: Path) -> AsyncIterator[Postgres]:
    """A server of the test's own that asks for certificates."""
    account = Account.choose(SERVER_USER, [folder, *program_folders()[:1]])
    passwords = dict.fromkeys((SUPERUSER, *LOGINS), "hunter2")
    made = Postgres(folder / "postgres", account, free_port(set()), passwords)
    made.start()
    try:
        certificates.issue("server", *FOR_LOCALHOST)
        for name in ("ca.pem", "server.pem", "server.key"):
            account.write(made.data / name, (certificates.folder / name).read_text())
        superuser = await asyncpg.connect(made.url(SUPERUSER, "postgres"))
        files = {"ssl_ca_file": "ca.pem", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key"}
        for name, value in {**files, "ssl": "on"}.items():
            await superuser.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        account.write(made.data / "pg_hba.conf", ACCESS)
        await superuser.execute("SELECT pg_reload_conf()")
        await superuser.close()
        yield made
    finally:
        made.stop(immediate=True)


def as_role(server: Postgres, certificates: Authority, role: str, *, name: str | None = None) -> Shell:
    """An operator with the password of a role, and the certificate of that name."""
    certificate, key = certificates.issue(name or role)
    url = server.url(role)
    return shell().having(
        database_url=url,
        database_owner_url=url,
        database_cafile=str(certificates.folder / "ca.pem"),
        database_certfile=str(certificate),
        database_keyfile=str(key),
    )


def turned_away(ended: Ended, why: str) -> None:
    assert ended.status == 3, ended
    assert why in ended.err
    assert "hunter2" not in ended.out + ended.err


async def test_both_sides_prove_who_they_are_before_the_ledger_is_read(
    server: Postgres, certificates: Authority
) -> None:
    owner = as_role(server, certificates, "nodeledger_owner")
    upgraded = await owner.run("db", "upgrade")
    assert upgraded.status == 0, upgraded
    worker = as_role(server, certificates, "nodeledger_worker")
    assert (await worker.run("verify")).status == 0

    mallory = as_role(server, certificates, "nodeledger_worker", name="mallory")
    turned_away(await mallory.run("verify"), "authentication failed")
    bare = shell().having(
        database_url=server.url("nodeledger_worker"), database_cafile=str(certificates.folder / "ca.pem")
    )
    turned_away(await bare.run("verify"), "certificate")
    misnamed = worker.having(database_url=server.url("nodeledger_worker").replace("127.0.0.1", "localhost"))
    turned_away(await misnamed.run("verify"), "CERTIFICATE_VERIFY_FAILED")
    stranger = Authority(certificates.folder, "stranger").create()
    distrusting = worker.having(database_cafile=str(stranger.folder / "stranger.pem"))
    turned_away(await distrusting.run("verify"), "CERTIFICATE_VERIFY_FAILED")
    plain = shell().having(database_url=server.url("nodeledger_worker") + "?sslmode=disable")
    turned_away(await plain.run("verify"), "no encryption")


async def test_certificates_that_are_set_are_used_or_nothing_is(database: Database, certificates: Authority) -> None:
    """A server, or somebody in between, that offers no encryption gets no password."""
    ca = str(certificates.folder / "ca.pem")
    turned_away(await shell(database).having(database_cafile=ca).run("verify"), "SSL")
    broker = shell(database).having(amqp_url="amqp://u:hunter2@127.0.0.1:1/", amqp_cafile=ca)
    refused = await broker.run("topology", "check")
    assert refused.status == 2
    assert "amqps://" in refused.err
    assert "hunter2" not in refused.err
