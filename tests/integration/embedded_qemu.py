"""A program: follow one real QEMU guest through its life, and print what the hypervisor adapter says at each step.

A process can open only one embedded root ever, so this has a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from uuid import UUID, uuid4

import libvirt

from deploy.lib.qemu import configure
from worker.hypervisor import Hypervisors

DEADLINE_SECONDS = 90.0
"""Asking QEMU what it can do takes ten seconds where it may not use /dev/kvm."""

DOMAIN = """<domain type='qemu'><name>guest</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='0'/></cputune><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/></devices></domain>"""


class Heard:
    """What libvirt tells of the host by itself: an event for each step, and how long it took."""

    def __init__(self) -> None:
        self._something = asyncio.Event()

    def happened(self, _node: str) -> None:
        self._something.set()

    def fell_silent(self, *_: str) -> None: ...

    def came_back(self, *_: str) -> None: ...

    async def within_two_seconds(self) -> bool:
        try:
            async with asyncio.timeout(2.0):
                await self._something.wait()
        except TimeoutError:
            return False
        self._something.clear()
        return True


async def life(root: Path) -> dict[str, object]:
    """Define, start, pause, stop and undefine a guest."""
    configure(root)
    uri, instance = f"qemu:///embed?root={root}", uuid4()
    pool = Hypervisors(allowed=[uri], deadline_seconds=DEADLINE_SECONDS)
    await pool.start()
    heard = Heard()
    pool.report_to(heard)
    pool.watch("cn-1", uri)
    inventory = await pool.inventory("cn-1", uri)
    connection = await asyncio.to_thread(libvirt.open, uri)
    said = [await pool.domain_state("cn-1", uri, instance)]
    domain = connection.defineXML(DOMAIN.format(uuid=instance))
    told = [await heard.within_two_seconds()]
    for step in (None, domain.create, domain.suspend, domain.destroy, domain.undefine):
        if step is not None:
            await asyncio.to_thread(step)
            told.append(await heard.within_two_seconds())
        said.append(await pool.domain_state("cn-1", uri, instance))
        if step == domain.suspend:
            (listed,) = await pool.domains("cn-1", uri)
    same = await pool.inventory("cn-1", uri) is inventory
    connection.close()
    await pool.close()
    return {
        "states": said,
        "told": told,
        "same": same,
        "memory_mib": inventory.memory_mib,
        "cells": len(inventory.cells),
        "avx_or_sse": any(trait.startswith("HW_CPU_X86_SSE") for trait in inventory.traits),
        "listed": [listed.uuid == UUID(str(instance)), listed.vcpus, listed.memory_mib, sorted(listed.vcpu_cpus[0])],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(life(Path(sys.argv[1])))))  # noqa: T201 - its answer
