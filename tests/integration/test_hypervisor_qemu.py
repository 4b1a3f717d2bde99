from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]


def missing() -> str | None:
    """What keeps a real QEMU guest from running here."""
    if shutil.which("qemu-system-x86_64") is None:
        return "needs QEMU: Debian's package qemu-system-x86"
    if not [*Path("/usr/lib").glob("**/libvirt/connection-driver/libvirt_driver_qemu.so")]:
        return "needs libvirt's QEMU driver: Debian's package libvirt-daemon-driver-qemu"
    if os.geteuid() == 0 and "libvirt-qemu" not in {entry.pw_name for entry in pwd.getpwall()}:
        return "needs the user libvirt-qemu, which libvirt's QEMU driver wants when it runs as root"
    return None


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_real_guest_is_followed_through_its_life() -> None:
    # A short path: QEMU's sockets lie below it, and their names are limited to 107 characters.
    with TemporaryDirectory(prefix="embed-", dir="/tmp") as root:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.integration.embedded_qemu", root],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["states"] == ["absent", "shut_off", "running", "running", "shut_off", "absent"]
    assert said["told"] == [True] * 5, "defined, started, paused, stopped, undefined: each within two seconds"
    assert said["listed"] == [True, 1, 32, [0]]
    assert said["memory_mib"] > 0
    assert said["same"]
    assert said["avx_or_sse"]
