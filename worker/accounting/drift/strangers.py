"""Domains that run where nothing is claimed for them: what is told of them, and what they are charged.

A stranger is charged everything that its description shows it uses, so that
nothing of it is given to another: CPUs that are handed out alone and that one of its
threads is confined to, as CPUs of its own; other vCPUs as shared ones; memory in
the pages and on the cells it is bound to; devices whole, mediated ones by their count.
What somebody else holds already stays theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.drift.found import Drift
from worker.accounting.drift.memory import ordinary_pages
from worker.accounting.host.cpus import bits_of, mask_of
from worker.accounting.host.devices import mdev_counter
from worker.accounting.host.pages import free_pages, pages_counter
from worker.accounting.state.occupancy import Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.accounting.host.cells import HostCell
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.domains import Domain, DomainMemory
    from worker.accounting.state.instances import Instance
    from worker.accounting.state.occupancy import Counters, Occupancy


def stranger_drift(node: str, instance: Instance | None, domain: Domain) -> Drift:
    """What is known of a running domain that nothing is claimed for here."""
    where, known = _whereabouts(instance)
    charged = instance is not None and any(holding.role == "orphan" for holding in instance.on(node))
    detail = f"domain {domain.name!r} runs on {node}{', charged,' if charged else ''} and {known}"
    if domain.fault is not None:
        detail += f"; its description cannot be read: {domain.fault}"
    return Drift(node, "orphan", domain.uuid, detail, {}, _described(domain), where)


def _whereabouts(instance: Instance | None) -> tuple[str | None, str]:
    if instance is not None and instance.deleted_at is not None:
        since = f"deleted at {instance.deleted_at.isoformat()}"
        return since, f"its instance was {since}"
    if instance is not None and instance.claims:
        nodes = ", ".join(dict.fromkeys(holding.node for holding in instance.claims))
        return nodes, f"its instance is claimed on {nodes}"
    return None, "nobody claimed it"


def _described(domain: Domain) -> dict[str, object]:
    used: dict[str, object] = {"vcpus": domain.vcpus, "memory_mib": domain.memory_mib}
    if devices := [*domain.devices, *(" ".join(one) for one in domain.mediated), *domain.unknown]:
        used["devices"] = devices
    return used


def charged(host: Host, online: frozenset[int], occupancy: Occupancy, domain: Domain) -> Placement:
    """What a stranger is charged beside what others hold; ``occupancy`` is without what it is charged already."""
    pins = _pins(host, online, domain) - occupancy.pinned.keys()
    charge: Counters = {}
    _charge_cpus(charge, host, domain, pins)
    small_mib = sum(_charge_memory(charge, host, occupancy, piece) for piece in domain.memory)
    if host.surcharge is not None:
        small_mib += host.surcharge.memory_mib(domain.vcpus, domain.memory_mib)
    charge["memory_mib"] = small_mib
    for parent, mdev_type in domain.mediated:
        counter = mdev_counter(parent, mdev_type)
        charge[counter] = charge.get(counter, 0) + 1
    devices = tuple(address for address in domain.devices if address not in occupancy.held)
    return Placement({name: amount for name, amount in charge.items() if amount}, pins, devices)


def _pins(host: Host, online: frozenset[int], domain: Domain) -> frozenset[int]:
    """The CPUs that are handed out alone among those that a thread is confined to."""
    threads = [*domain.vcpu_cpus.values(), domain.emulator_cpus, domain.io_cpus]
    confined = {cpus for cpus in threads if cpus is not None and (len(cpus) == 1 or not cpus >= online)}
    dedicated = sum(cell.dedicated for cell in host.cells or (host.implicit,))
    return frozenset(bits_of(mask_of(frozenset[int]().union(*confined)) & dedicated))


def _charge_cpus(charge: Counters, host: Host, domain: Domain, pins: frozenset[int]) -> None:
    shared = [cpus for cpus in domain.vcpu_cpus.values() if not cpus <= pins]
    charge["vcpus"] = domain.vcpus - (len(domain.vcpu_cpus) - len(shared))
    charge["pcpus"] = len(pins)
    for cpus in shared:
        mask = mask_of(cpus)
        near = [cell for cell in host.cells if mask & sum(cell.siblings)]
        if len(near) == 1:
            charge[near[0].vcpus_counter] = charge.get(near[0].vcpus_counter, 0) + 1


def _charge_memory(charge: Counters, host: Host, occupancy: Occupancy, piece: DomainMemory) -> int:
    """Charge memory to its cells; what of it is ordinary memory, in MiB.

    Huge pages of several cells, or of any, are counted where most of them are
    free, as the kernel spreads them as evenly as it can.
    """
    cells = [cell for cell in host.cells if cell.id in piece.host_cells] or list(host.cells)
    size = piece.page_size_kib
    if size is None or size in ordinary_pages(host):
        if len(cells) == 1 and piece.host_cells:
            _charge_small(charge, cells[0], piece.memory_mib)
        return piece.memory_mib
    size = size or min((pages.size_kib for cell in cells for pages in cell.pages[1:]), default=0)
    if not size or not cells:
        return piece.memory_mib
    left = -(-piece.memory_mib * 1024 // size)
    for cell, free in _with_free(cells, size, occupancy):
        counter = pages_counter(cell.id, size)
        taken = min(left, max(0, free - charge.get(counter, 0)))
        if taken:
            charge[counter] = charge.get(counter, 0) + taken
            left -= taken
    if left:
        counter = pages_counter(cells[0].id, size)
        charge[counter] = charge.get(counter, 0) + left
    return 0


def _charge_small(charge: Counters, cell: HostCell, memory_mib: int) -> None:
    charge[cell.memory_counter] = charge.get(cell.memory_counter, 0) + memory_mib
    if cell.pages:
        counter = cell.pages[0].counter
        charge[counter] = charge.get(counter, 0) + memory_mib * 1024 // cell.pages[0].size_kib


def _with_free(cells: Sequence[HostCell], size: int, occupancy: Occupancy) -> Iterator[tuple[HostCell, int]]:
    """The cells with how many pages of a size are free on each, most first."""
    free = [(cell, free_pages(some, occupancy.used)) for cell in cells for some in cell.pages if some.size_kib == size]
    yield from sorted(free, key=lambda one: (-one[1], one[0].id))
