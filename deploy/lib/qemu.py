"""A node of real QEMU without a daemon: libvirt's driver inside the worker, its state in a folder of its own.

Run as a program, prints the address of that node, or says why QEMU cannot run here and ends with status 1. Asking QEMU
what it can do takes ten seconds the first time and is remembered in the folder; the worker then has its answer at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from worker.engine.ports import HypervisorUnreachable
from worker.hypervisor import Hypervisors

DEADLINE_SECONDS = 60.0
# Without the first a guest would need virtlogd, with namespaces the right to mount.
SETTINGS = 'stdio_handler = "file"\nnamespaces = []\nsecurity_driver = "none"\n'
ROOT_SETTINGS = 'user = "root"\ngroup = "root"\n'


def configure(root: Path) -> None:
    """Write the driver's settings into the folder."""
    (root / "etc").mkdir(parents=True, exist_ok=True)
    settings = SETTINGS + ROOT_SETTINGS if os.geteuid() == 0 else SETTINGS
    (root / "etc" / "qemu.conf").write_text(settings, encoding="ascii")


async def prepare(root: Path) -> str:
    """Make the folder ready and return its address; raises HypervisorUnreachable where QEMU cannot run."""
    configure(root)
    uri = f"qemu:///embed?root={root}"
    hypervisors = Hypervisors(allowed=[uri], deadline_seconds=DEADLINE_SECONDS)
    await hypervisors.start()
    try:
        await hypervisors.inventory("quickstart", uri)
    finally:
        await hypervisors.close()
    return uri


def main() -> int:
    """Print the address."""
    try:
        print(asyncio.run(prepare(Path(sys.argv[1]))))
    except (HypervisorUnreachable, OSError) as error:
        print(f"QEMU cannot run here: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
