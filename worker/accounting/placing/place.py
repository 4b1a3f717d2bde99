"""Whether and where one instance fits on one node."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from worker.accounting.assignments import assignment
from worker.accounting.host.compiled import beside_isolated, without_pinned
from worker.accounting.host.cpus import bits_of
from worker.accounting.host.devices import Stock
from worker.accounting.placing.assortment import Assortment
from worker.accounting.placing.demand import Demand
from worker.accounting.placing.guests import device_contradictions, guest_of
from worker.accounting.placing.keeping import former_of, kept_offers
from worker.accounting.placing.layout import Layout, lay
from worker.accounting.placing.matching import choose, everywhere
from worker.accounting.reasons.amounts import limit_breaches, shortages
from worker.accounting.reasons.devices import why_no_devices
from worker.accounting.reasons.refusals import too_complex, unexplained
from worker.accounting.reasons.traits import trait_breaches
from worker.accounting.state.occupancy import Placement, isolated, with_huge_pages
from worker.accounting.work import TooComplexError, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.inventory import Device
    from schemas.outcomes import Reason
    from schemas.requests import CachePolicy, DeviceRequest, Resources, ThreadPolicy, Topology, Traits
    from worker.accounting.host.compiled import Host
    from worker.accounting.placing.guests import Guest
    from worker.accounting.placing.keeping import Former
    from worker.accounting.state.occupancy import Counters, Occupancy

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Request(Protocol):
    """What one instance is to hold, as commands carry it."""

    @property
    def resources(self) -> Resources:
        """The plain amounts."""

    @property
    def topology(self) -> Topology | None:
        """How CPUs and memory are to lie on the host's cells."""

    @property
    def devices(self) -> Sequence[DeviceRequest]:
        """The devices."""

    @property
    def traits(self) -> Traits | None:
        """What the node must and must not be."""


def place(
    host: Host,
    occupancy: Occupancy,
    shape: Request,
    *,
    own: Mapping[str, int] = _NOTHING,
    held: Sequence[Placement] = (),
    thread_policy: ThreadPolicy | None = None,
    cache: CachePolicy | None = None,
    work: Work | None = None,
) -> Placement | list[Reason]:
    """Find room for ``shape``, or say everything that stands against it.

    ``occupancy`` is without what the instance itself holds on the node, and
    ``own`` is what it is charged there now: a counter that does not grow
    beyond it never refuses. ``held`` are its placements there, the one in use
    first: cells, CPUs and devices stay the same as far as they can. Its CPUs
    were given under ``thread_policy`` and ``cache``. ``work`` is how much of it may be spent,
    which several placements of one command share.
    """
    if host.threads and occupancy.pinned:
        occupancy = _with_siblings(host, occupancy)
    if occupancy.pinned or held:
        host = without_pinned(host, _pinned(occupancy, shape, held))
    if shape.topology is None and not shape.devices and shape.traits is None and not host.limits:
        charge = plain_charge(host, shape.resources)
        if fits(host, occupancy.used, charge, own):
            return Placement(charge, assignment=host.unplaced)
    former = former_of(held, thread_policy, cache)
    return _place(host, occupancy, shape, own, former, Work() if work is None else work)


def _with_siblings(host: Host, occupancy: Occupancy) -> Occupancy:
    """The same where the siblings of CPUs whose holders have their cores alone are taken too."""
    alone = isolated(occupancy.used)
    siblings = bits_of(beside_isolated(host, alone)) if alone else ()
    if not siblings:
        return occupancy
    holder = occupancy.pinned.get(alone[0], next(iter(occupancy.pinned.values())))
    return replace(occupancy, pinned={**dict.fromkeys(siblings, holder), **occupancy.pinned})


def _place(
    host: Host, occupancy: Occupancy, shape: Request, own: Mapping[str, int], former: Former, work: Work
) -> Placement | list[Reason]:
    reasons: list[Reason] = []
    try:
        work.spend(length_of(shape))
        return _placed(host, occupancy, shape, own, former, work, reasons)
    except TooComplexError:
        return [*reasons, too_complex("whether the node has room for the instance is not known")]


def length_of(shape: Request) -> int:
    """The steps it takes to read a request."""
    steps = 2 + len(shape.resources.custom) // 4 + sum([1 + len(device.match) // 4 for device in shape.devices])
    if shape.traits is not None:
        steps += (len(shape.traits.required) + len(shape.traits.forbidden)) // 8
    if shape.topology is None or shape.topology.cells is None:
        return steps
    cells = shape.topology.cells
    if isinstance(cells, int):
        return steps + 2 * cells
    wide = 4 + shape.resources.vcpus // 4096
    return steps + sum([wide + len(cell.vcpus) // 8 for cell in cells])


def _placed(
    host: Host,
    occupancy: Occupancy,
    shape: Request,
    own: Mapping[str, int],
    former: Former,
    work: Work,
    reasons: list[Reason],
) -> Placement | list[Reason]:
    """Find room; ``reasons`` are added to as they are found out."""
    resources, topology = shape.resources, shape.topology
    reasons += device_contradictions(shape.devices)
    guest = None if topology is None else guest_of(resources, topology)
    charge = amounts_of(host, resources, guest)
    if isinstance(guest, list):
        reasons += guest
        guest = None
    contradicted = bool(reasons)
    if not fits(host, occupancy.used, charge, own):
        reasons += shortages(host.capacity, occupancy, charge, own, work.most)
    if host.limits:
        asked = {**charge, "memory_mib": resources.memory_mib}
        whole = {**charge, "memory_mib": plain_charge(host, resources)["memory_mib"]}
        reasons += limit_breaches(host.limits, asked, whole, with_huge_pages(own), work.most)
    if shape.traits is not None:
        reasons += trait_breaches(host.traits, shape.traits, work.most)
    if contradicted:
        return reasons
    work.spend(5 * len(reasons))
    layout = _layout(host, occupancy, own, guest, shape.devices, former, work)
    if isinstance(layout, list):
        return reasons + layout
    if guest is not None and chooses_pages(guest) and (whole := with_small_memory(host, charge, layout)) is not charge:
        charge = whole
        reasons += shortages(host.capacity, occupancy, {"memory_mib": charge["memory_mib"]}, own, work.most)
    return reasons or placement_of(host, charge, layout, shape.devices)


def chooses_pages(guest: Guest) -> bool:
    """Whether its memory may lie in huge pages: only the cells that it gets tell which of its memory does."""
    return guest.page_size not in {None, "small"}


def with_small_memory(host: Host, charge: Counters, layout: Layout) -> Counters:
    """The plain charge with the memory that a layout takes on cells outside huge pages."""
    small_mib = sum([layout.charge.get(cell.memory_counter, 0) for cell in host.cells])
    return {**charge, "memory_mib": charge.get("memory_mib", 0) + small_mib} if small_mib else charge


def _layout(
    host: Host,
    occupancy: Occupancy,
    own: Mapping[str, int],
    guest: Guest | None,
    requests: Sequence[DeviceRequest],
    former: Former,
    work: Work,
) -> Layout | list[Reason]:
    if guest is None and not requests:
        return Layout({}, frozenset(), [], [])
    demand = demand_of(host, occupancy, requests, former, work)
    if guest is not None:
        return lay(host, occupancy, own, guest, demand, former)
    return _devices_anywhere(demand, occupancy)


def plain_charge(host: Host, resources: Resources) -> Counters:
    """What the plain amounts are charged, overhead included; what is 0 is left out."""
    vcpus, memory_mib = resources.vcpus, resources.memory_mib
    if host.surcharge is not None:
        memory_mib += host.surcharge.memory_mib(vcpus, memory_mib)
    charge = {"vcpus": vcpus, "memory_mib": memory_mib}
    if disk_mib := resources.disk.total_mib:
        charge["disk_mib"] = disk_mib
    if resources.custom:
        charge.update(sorted(resources.custom.items()))
    return charge


def requested(host: Host, shape: Request) -> Counters:
    """The plain amounts of a request, of CPUs the shared and the dedicated ones; none of vCPUs that contradict it.

    Memory that may lie in huge pages is left out.
    """
    guest = None if shape.topology is None else guest_of(shape.resources, shape.topology)
    return amounts_of(host, shape.resources, guest)


def amounts_of(host: Host, resources: Resources, guest: Guest | list[Reason] | None) -> Counters:
    """As :func:`requested`, for a guest whose meaning is known."""
    charge = plain_charge(host, resources)
    if guest is None:
        return charge
    if not isinstance(guest, list) and chooses_pages(guest):
        charge["memory_mib"] -= resources.memory_mib
        if not charge["memory_mib"]:
            del charge["memory_mib"]
    del charge["vcpus"]
    return charge if isinstance(guest, list) else {**_cpus(guest), **charge}


def _cpus(guest: Guest) -> Counters:
    """Shared vCPUs and dedicated CPUs, which are separate resources."""
    return {name: amount for name, amount in (("vcpus", guest.vcpus), ("pcpus", guest.pcpus)) if amount}


def fits(host: Host, used: Mapping[str, int], charge: Mapping[str, int], own: Mapping[str, int]) -> bool:
    """Whether plain amounts are there, or held already."""
    ceiling, hardware = host.ceiling, host.hardware
    for name, amount in charge.items():
        enough = used.get(name, 0) + amount <= ceiling.get(name, 0) and amount <= hardware.get(name, 0)
        if not enough and amount > own.get(name, 0):
            return False
    return True


def _pinned(occupancy: Occupancy, shape: Request, held: Sequence[Placement]) -> Mapping[int, object]:
    """The CPUs that others have alone, and those of its own that an instance with dedicated CPUs may keep."""
    if shape.topology is None or shape.topology.cpu_policy == "shared":
        return occupancy.pinned
    return {**occupancy.pinned, **dict.fromkeys(cpu for placement in held for cpu in placement.pins)}


def demand_of(
    host: Host, occupancy: Occupancy, requests: Sequence[DeviceRequest], former: Former, work: Work
) -> Demand:
    """What the requests want of the host's devices, beside what is left of those."""
    catalog = host.catalog
    wants = [catalog.want(request, work) for request in requests]
    stock = Stock(0, {})
    if catalog.offers:
        work.spend((len(occupancy.held) + len(occupancy.used)) // 8 + (catalog.everything & ~catalog.whole).bit_count())
        stock = catalog.stock(occupancy.held, occupancy.used)
    assortment = Assortment(catalog, stock, [want.allowed for want in wants], work)
    kept = [kept_offers(catalog, former, request.name) for request in requests]
    return Demand(catalog=catalog, stock=stock, wants=wants, kept=kept, assortment=assortment, work=work)


def _devices_anywhere(demand: Demand, occupancy: Occupancy) -> Layout | list[Reason]:
    """Devices for an instance that may lie on any of the host's cells."""
    anywhere = everywhere(demand)
    choice = choose(demand, anywhere)
    if choice is not None:
        return Layout({}, frozenset(), [], choice)
    try:
        return why_no_devices(demand.explaining(), anywhere, occupancy.held)
    except TooComplexError:
        return [unexplained("no_device_fit", "the node does not have all devices that the instance asks for")]


def placement_of(host: Host, charge: Counters, layout: Layout, requests: Sequence[DeviceRequest]) -> Placement:
    """A layout as what is charged, held and answered."""
    charge = {**charge, **layout.charge}
    addresses: list[str] = []
    assigned: list[dict[str, object]] = []
    for request, taken in zip(requests, layout.choice, strict=True):
        for number, amount in sorted(taken.items()):
            device, mdev_type, _ = offer = host.catalog.offers[number]
            if mdev_type is None:
                addresses.append(device.address)
                assigned.append({**_assigned(request.name, device), "type": device.type, "parent": device.parent})
                continue
            charge[offer.counter] = charge.get(offer.counter, 0) + amount
            mediated = {"mdev_type": mdev_type, "type": "mdev", "parent": device.address}
            assigned += [{**_assigned(request.name, device), **mediated}] * amount
    return Placement(charge, layout.pins, tuple(addresses), assignment(host.floating, layout.cells, assigned))


def _assigned(name: str, device: Device) -> dict[str, object]:
    return {"name": name, "address": device.address, "cell": device.cell}
