from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.lib.processes import Account, free_port
from deploy.lib.stack import SERVER_USER
from tests.certificates import FOR_LOCALHOST, OF_NO_AUTHORITY, Authority

PROJECT = Path(__file__).parents[2]
DAEMON = shutil.which("libvirtd", path="/usr/sbin:/usr/bin")
START_SECONDS = 30

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(DAEMON is None or os.geteuid() != 0, reason="needs libvirtd, and root to start it"),
]

CONFIGURATION = """\
listen_tls = 1
listen_tcp = 0
listen_addr = "127.0.0.1"
tls_port = "{port}"
auth_tls = "none"
auth_unix_rw = "none"
unix_sock_dir = "{folder}"
ca_file = "{folder}/ca.pem"
cert_file = "{folder}/host.pem"
key_file = "{folder}/host.key"
tls_allowed_dn_list = ["CN=worker"]
"""

# Asks as a worker does, as a user whose certificates lie where libvirt looks for them.
ASK = """
import asyncio, json, sys
from worker.engine.ports import HypervisorUnreachable
from worker.hypervisor import Hypervisors
async def main():
    hypervisors = Hypervisors(allowed=(sys.argv[1],), deadline_seconds=10)
    await hypervisors.start()
    try:
        said = (await hypervisors.inventory("cn-1", sys.argv[1])).cpus
    except HypervisorUnreachable as trouble:
        said = None, trouble.detail
    await hypervisors.close()
    print(json.dumps(said))
asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A libvirt daemon that asks for certificates, and a user who may have one."""

    folder: Path
    port: int
    account: Account
    certificates: Authority

    def ask(self, name: str | None, *, host: str = "127.0.0.1", authority: str = "ca") -> object:
        """What a worker with the certificate of that name, or none, hears."""
        home = self.folder / f"home-{name}-{host}-{authority}"
        self.account.own(home)
        pki = home / ".pki" / "libvirt"
        pki.mkdir(parents=True)
        shutil.copy(self.certificates.folder / f"{authority}.pem", pki / "cacert.pem")
        if name is not None:
            certificate, key = self.certificates.issue(name, *OF_NO_AUTHORITY)
            shutil.copy(certificate, pki / "clientcert.pem")
            shutil.copy(key, pki / "clientkey.pem")
        subprocess.run(["chown", "--recursive", f"{self.account.name}:", home], check=True)
        command = [sys.executable, "-c", ASK, f"test+tls://{host}:{self.port}/default"]
        environment = {"HOME": str(home), "PATH": os.defpath, "PYTHONPATH": str(PROJECT)}
        return json.loads(self.account.run(command, environment, cwd=home).splitlines()[-1])


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    certificates = Authority(tmp_path).create()
    certificates.issue("host", *FOR_LOCALHOST)
    folder = Path(tempfile.mkdtemp(prefix="nodeledger-libvirtd-"))
    folder.chmod(0o711)
    for name in ("ca.pem", "host.pem", "host.key"):
        shutil.copy(tmp_path / name, folder)
    port = free_port(set())
    (folder / "libvirtd.conf").write_text(CONFIGURATION.format(port=port, folder=folder))
    log = folder / "libvirtd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [str(DAEMON), "--listen", "--config", folder / "libvirtd.conf", "--pid-file", folder / "pid"],
            stdout=output, stderr=output, env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )  # fmt: skip
    try:
        _wait_for(port, daemon, log)
        yield Host(folder, port, Account.choose(SERVER_USER, [folder, PROJECT]), certificates)
    finally:
        daemon.terminate()
        daemon.wait(START_SECONDS)
        shutil.rmtree(folder)


def _wait_for(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    deadline = time.monotonic() + START_SECONDS
    while wanted not in Path("/proc/net/tcp").read_text():
        assert daemon.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_hypervisor_and_a_worker_prove_to_each_other_who_they_are(host: Host) -> None:
    assert host.ask("worker") == "0-15"
    for unproven in (
        host.ask("mallory"),
        host.ask(None),
        host.ask("worker", host="localhost"),
    ):
        assert isinstance(unproven, list), unproven
        assert unproven[0] is None
    Authority(host.certificates.folder, "stranger").create()
    assert isinstance(host.ask("worker", authority="stranger"), list)
