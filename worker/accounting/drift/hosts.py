"""What instances hold and their host no longer has, or has otherwise. It keeps counting; here it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.cpuset import format_cpu_set, parse_cpu_set
from worker.accounting.drift.found import Drift
from worker.accounting.host.cpus import follows, mask_of
from worker.accounting.state.instances import packed_under, shape_of
from worker.accounting.work import TooComplexError, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.inventory import Device
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.instances import Holding, Instance
    from worker.accounting.state.view import Node


def host_drift(node: Node, holder: Instance) -> Iterator[Drift]:
    """Tell of CPUs, cells, pages and devices of an instance that are gone or are others now; all of it in one."""
    host, inventory = node.host, node.inventory
    if host is None or inventory is None:
        return
    online = parse_cpu_set(inventory.cpus)
    devices = {device.address.lower(): device for device in inventory.devices}
    told = dict.fromkeys(
        sentence
        for holding in holder.on(node.name)
        for sentence in (
            *_cpus(host, online, holding),
            *_cells(host, holding),
            *_pages(host, holding),
            *_devices(host, devices, holding),
        )
    )
    if told:
        yield Drift(node.name, "host", holder.id, "; ".join(told))


def _cpus(host: Host, online: frozenset[int], holding: Holding) -> Iterator[str]:
    pins = holding.placement.pins
    if gone := pins - online:
        yield f"CPUs {format_cpu_set(gone)} are not online"
    policy = packed_under(holding)[0]
    cells = host.cells or (host.implicit,)
    for guest_cell in _cells_of(holding):  # each was packed by itself
        own = guest_cell["pins"].values()
        exact = mask_of(own)
        cores = [core & (cell.usable | exact) for cell in cells for core in cell.siblings]
        if not follows(cores, exact, policy):
            yield f"CPUs {format_cpu_set(own)} do not lie on their cores as thread_policy {policy} asks"


def _cells(host: Host, holding: Holding) -> Iterator[str]:
    known = {cell.id for cell in host.cells or (host.implicit,)}
    where = {cell.id: sum(cell.siblings) for cell in host.cells}
    for cell in _cells_of(holding):
        number, cpus = cell["host_cell"], mask_of(cell["pins"].values())
        if number not in known:
            yield f"the host has no cell {number}"
        elif number in where and cpus & sum(mask for other, mask in where.items() if other != number):
            yield f"CPUs {format_cpu_set(cell['pins'].values())} are not on cell {number}"


def _pages(host: Host, holding: Holding) -> Iterator[str]:
    there = {pages.counter: pages.total for cell in host.cells for pages in cell.pages}
    for counter, amount in holding.placement.charge.items():
        if "/pages/" in counter and amount > there.get(counter, 0):
            _, cell, _, size = counter.split("/")
            yield f"{amount} pages of {size} KiB are held on cell {cell}, which has {there.get(counter, 0)}"


def _devices(host: Host, devices: dict[str, Device], holding: Holding) -> Iterator[str]:
    placement: Any = holding.placement.assignment
    addresses = {given["address"].lower() for given in placement["devices"]} | set(holding.placement.devices)
    for address in sorted(addresses):
        if address not in devices:
            yield f"device {address} is gone"
    for given in placement["devices"]:
        device = devices.get(given["address"].lower())
        if device is not None and not _still(host, device, given, holding):
            yield f"the device at {device.address} is another than it was given for"


def _still(host: Host, device: Device, given: Any, holding: Holding) -> bool:
    """Whether a device is what was given: of its type, and matching what was asked for as far as it is offered."""
    if given.get("mdev_type") is not None:
        return given["mdev_type"] in device.mdev_types
    if given.get("type") is not None and given["type"] != device.type:
        return False
    request = next((one for one in shape_of(holding.request).devices if one.name == given["name"]), None)
    offers = host.catalog.on.get(device.address, 0)
    if request is None or not offers:
        return True
    try:
        return bool(host.catalog.want(request, Work()).allowed & offers)
    except TooComplexError:
        return True


def _cells_of(holding: Holding) -> Any:
    return holding.placement.assignment["cells"]
