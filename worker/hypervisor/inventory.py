"""From what was observed of a host to its inventory: pure, and the same input gives the same object again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from schemas.cpuset import MAX_CPU, format_cpu_set
from schemas.inventory import Cell, Inventory, Pages
from worker.hypervisor.devices import NodeDevice, assignable_devices
from worker.hypervisor.documents import XmlFault
from worker.hypervisor.encryption import Encryption
from worker.hypervisor.traits import cpu_traits

if TYPE_CHECKING:
    from worker.hypervisor.capabilities import HostCapabilities, HostCell

_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True)
class Observation:
    """All that an inventory is made of.

    ``online`` holds the CPUs that run, ``None`` where the driver cannot tell;
    ``cpu_count`` is then how many there are, should no cell list them.
    """

    capabilities: HostCapabilities
    memory_mib: int
    cpu_count: int
    online: frozenset[int] | None
    features: frozenset[str] = frozenset()
    encryption: Encryption = field(default_factory=Encryption)
    devices: tuple[NodeDevice, ...] = ()
    disk_gib: int = 0


def inventory_of(observation: Observation) -> Inventory:
    """Make the inventory of a host.

    Raises:
        XmlFault: the host contradicts itself, or a number exceeds what the
            contract can hold.
    """
    described = observation.capabilities
    online = _online(observation)
    try:
        cells = [_cell(cell, online) for cell in described.cells]
        threaded = any(len(core & online) > 1 for cell in described.cells for core in cell.cores)
        traits = cpu_traits(described.arch, described.features | observation.features, threaded=threaded)
        return Inventory(
            cpus=format_cpu_set(online),
            memory_mib=observation.memory_mib,
            disk_gib=observation.disk_gib,
            cells=cells,
            devices=assignable_devices(observation.devices, frozenset(cell.id for cell in cells)),
            custom=dict(observation.encryption.slots),
            traits=sorted({*traits, *observation.encryption.traits}),
        )
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "inventory"
        raise XmlFault(f"{place}: {first['msg']}") from None


def _online(observation: Observation) -> frozenset[int]:
    """Return the CPUs that run; where the driver cannot tell, those whose place is known, else all there are."""
    if observation.online is not None:
        return observation.online
    cells = observation.capabilities.cells
    placed = frozenset[int]().union(*(cell.placed for cell in cells))
    return (
        placed
        or frozenset[int]().union(*(cell.cpus for cell in cells))
        or frozenset(range(min(observation.cpu_count, MAX_CPU + 1)))
    )


def _cell(cell: HostCell, online: frozenset[int]) -> Cell:
    return Cell(
        id=cell.id,
        socket=cell.socket,
        cpus=format_cpu_set(cell.cpus & online),
        siblings=_running(cell.cores, online),
        dies=_running(cell.dies, online),
        clusters=_running(cell.clusters, online),
        memory_mib=cell.memory_kib // 1024,
        pages=[Pages(size_kib=size, total=total) for size, total in cell.pages],
    )


def _running(groups: tuple[frozenset[int], ...], online: frozenset[int]) -> list[str]:
    return [format_cpu_set(group & online) for group in groups if group & online]


class Inventories:
    """The inventories made last, so that hosts alike share one and an unchanged host costs a comparison.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._made: OrderedDict[Observation, Inventory] = OrderedDict()
        self._lock = Lock()

    def of(self, observation: Observation) -> Inventory:
        """Return the inventory of an observation, the same object for equal ones.

        Raises:
            XmlFault: as :func:`inventory_of`.
        """
        with self._lock:
            known = self._made.get(observation)
            if known is not None:
                self._made.move_to_end(observation)
                return known
        made = inventory_of(observation)
        with self._lock:
            self._made[observation] = made
            if len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return made
