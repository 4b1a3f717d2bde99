"""The state that decisions are made on: what instances hold, and what a node has left.

All numeric use is kept in flat counters, so that taking, releasing, summing and
comparing are the same few lines for every resource:

=============================  ==================================================
``vcpus``                      shared vCPUs
``pcpus``                      host CPUs given to one instance alone
``memory_mib``, ``disk_mib``   amounts in MiB, overhead included; memory in huge pages is not in it
``CUSTOM_…``                   a producer's own resource
``cell/<id>/vcpus``            shared vCPUs placed on a host cell
``cell/<id>/memory_mib``       guest memory placed on a host cell, in MiB, but for that in huge pages
``cell/<id>/pages/<size>``     pages of ``size`` KiB taken on a host cell
``isolated/<cpu>``             1 for a CPU whose holder has its core alone
``mdev/<address>/<type>``      mediated devices of a type on a parent device
=============================  ==================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from worker.accounting.assignments import assignment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

_ISOLATED: Final = "isolated/"

Counters = dict[str, int]
Role = Literal["active", "move_source", "move_destination", "orphan"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request fits: what it is charged, and the assignment the hypervisor needs.

    ``pins`` holds every host CPU taken for this instance alone, those of its
    emulator threads included. ``devices`` holds the addresses of devices held
    whole; mediated devices are counted in ``charge``. ``assignment`` is the
    contract's assignment as JSON-ready values.
    """

    charge: Counters
    pins: frozenset[int] = frozenset()
    devices: tuple[str, ...] = ()
    assignment: Mapping[str, object] = field(default_factory=lambda: assignment(None))


@dataclass(slots=True)
class Occupancy:
    """What is taken on a node: its counters, and who holds each pinned CPU and each device.

    ``planned`` is what of ``used`` nobody holds yet: others of the same claim would.
    """

    used: Counters = field(default_factory=dict)
    pinned: dict[int, UUID] = field(default_factory=dict)
    held: dict[str, UUID] = field(default_factory=dict)
    planned: Counters = field(default_factory=dict)

    def without(self, placements: Sequence[Placement]) -> Occupancy:
        """A copy from which one instance's own placements on the node are taken out."""
        used = dict(self.used)
        for name, amount in merged(placements).items():
            used[name] -= amount
        pins = frozenset[int]().union(*(placement.pins for placement in placements))
        devices = {address for placement in placements for address in placement.devices}
        return Occupancy(
            used,
            {cpu: holder for cpu, holder in self.pinned.items() if cpu not in pins},
            {address: holder for address, holder in self.held.items() if address not in devices},
            self.planned,
        )


def isolated_counter(cpu: int) -> str:
    """The name of the counter that tells a CPU whose holder has its core alone."""
    return f"{_ISOLATED}{cpu}"


def isolated(used: Mapping[str, int]) -> list[int]:
    """The CPUs whose holders have their cores alone."""
    return [int(name.removeprefix(_ISOLATED)) for name in used if name.startswith(_ISOLATED) and used[name]]


def merged(placements: Sequence[Placement]) -> Counters:
    """What one instance's placements on one node are charged together: per counter, the largest.

    During a move within a node both sizes are held, but only one of them will
    be used at a time. Host CPUs are no mere amount: those of all sizes are kept
    for the instance, and each is charged once.
    """
    total: Counters = {}
    for placement in placements:
        for name, amount in placement.charge.items():
            if amount > total.get(name, 0):
                total[name] = amount
    if len(placements) > 1 and "pcpus" in total:
        total["pcpus"] = len(frozenset[int]().union(*(placement.pins for placement in placements)))
    return total


def with_huge_pages(charge: Mapping[str, int]) -> Counters:
    """A charge with memory in huge pages counted as memory: that of cells where nothing else is charged."""
    pages = [(name.split("/"), amount) for name, amount in charge.items() if "/pages/" in name]
    huge_kib = sum(
        amount * int(size) for (_, cell, _, size), amount in pages if f"cell/{cell}/memory_mib" not in charge
    )
    return {**charge, "memory_mib": charge.get("memory_mib", 0) + huge_kib // 1024} if huge_kib else dict(charge)


def beside(occupancy: Occupancy, holder: UUID, placement: Placement) -> Occupancy:
    """A copy in which a further placement is taken."""
    copy = Occupancy(dict(occupancy.used), dict(occupancy.pinned), dict(occupancy.held), dict(occupancy.planned))
    for name, amount in placement.charge.items():
        copy.used[name] = copy.used.get(name, 0) + amount
    copy.pinned.update(dict.fromkeys(placement.pins, holder))
    copy.held.update(dict.fromkeys(placement.devices, holder))
    return copy


def planned(occupancy: Occupancy, holder: UUID, placement: Placement) -> Occupancy:
    """A copy in which a further placement is planned: what is decided together with it is placed beside it."""
    copy = beside(occupancy, holder, placement)
    for name, amount in placement.charge.items():
        copy.planned[name] = copy.planned.get(name, 0) + amount
    return copy
