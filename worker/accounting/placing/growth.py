"""Whether a node holds more of anything once an instance has what it asks for: what a disabled node refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.host.modes import bits
from worker.accounting.placing.place import requested
from worker.accounting.state.occupancy import Placement, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounting.host.compiled import Host
    from worker.accounting.placing.place import Request
    from worker.accounting.state.occupancy import Counters


def grows(host: Host, held: Sequence[Placement], shape: Request, placement: Placement | None) -> bool:
    """Whether ``placement`` holds more of any kind than ``held``, in sum over cells and devices of that kind.

    Where there is no place, what was asked for is compared as far as it is the
    same everywhere.
    """
    before = _sums(host, merged(held), {address for one in held for address in one.devices})
    if placement is not None:
        after = _sums(host, placement.charge, placement.devices)
    else:
        after = requested(host, shape)
        after["devices"] = sum(device.count for device in shape.devices)
    return any(amount > before.get(kind, 0) for kind, amount in after.items())


def _sums(host: Host, charge: Counters, devices: Sequence[str] | set[str]) -> Counters:
    sums: Counters = {"devices": len(devices)}
    for name, amount in charge.items():
        kind = _kind(name)
        sums[kind] = sums.get(kind, 0) + amount
        if name.startswith("mdev/"):
            sums["devices"] += amount
    for address in devices:
        kind = _device_kind(host, address)
        sums[kind] = sums.get(kind, 0) + 1
    return sums


def _kind(counter: str) -> str:
    """A counter's kind: the same on every cell, CPU, and parent of a mediated type."""
    if counter.startswith("isolated/"):
        return "isolated"
    if counter.startswith("cell/"):
        return "cell/" + counter.split("/", 2)[2]
    return "mdev/" + counter.rsplit("/", 1)[1] if counter.startswith("mdev/") else counter


def _device_kind(host: Host, address: str) -> str:
    for number in bits(host.catalog.on.get(address, 0)):
        device = host.catalog.offers[number].device
        return f"{device.vendor}:{device.product}:{device.type}".lower()
    return address
