"""Whether and where one instance fits on one node."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from worker.accounting.capacity import limit_breaches, shortages
from worker.accounting.state import Placement
from worker.accounting.traits import trait_breaches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.outcomes import Reason
    from schemas.requests import DeviceRequest, Resources, Topology, Traits
    from worker.accounting.host import Host
    from worker.accounting.state import Counters, Occupancy

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Request(Protocol):
    """What one instance is to hold, as commands carry it."""

    @property
    def resources(self) -> Resources: ...
    @property
    def topology(self) -> Topology | None: ...
    @property
    def devices(self) -> Sequence[DeviceRequest]: ...
    @property
    def traits(self) -> Traits | None: ...


def place(
    host: Host, occupancy: Occupancy, shape: Request, *, own: Mapping[str, int] = _NOTHING
) -> Placement | list[Reason]:
    """Find room for ``shape``, or say everything that stands against it.

    ``occupancy`` is without what the instance itself holds on the node, and
    ``own`` is what it is charged there now: a counter that does not grow
    beyond it never refuses.
    """
    if shape.topology is None and not shape.devices and shape.traits is None:
        charge = plain_charge(host, shape.resources)
        if not host.limits and _fits(host.ceiling, occupancy.used, charge, own):
            return Placement(charge)
    else:
        charge = plain_charge(host, shape.resources)
    reasons = shortages(host.capacity, occupancy.used, charge, own)
    asked = {**charge, "memory_mib": shape.resources.memory_mib}
    reasons += limit_breaches(host.limits, asked, charge, own)
    if shape.traits is not None:
        reasons += trait_breaches(host.traits, shape.traits)
    return reasons or Placement(charge)


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


def _fits(
    ceiling: Mapping[str, int], used: Mapping[str, int], charge: Mapping[str, int], own: Mapping[str, int]
) -> bool:
    for name, amount in charge.items():
        if used.get(name, 0) + amount > ceiling.get(name, 0) and amount > own.get(name, 0):
            return False
    return True
