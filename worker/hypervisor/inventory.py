"""From what was observed of a host to its inventory: pure, and the same input gives the same object again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from schemas.base import MAX_AMOUNT
from schemas.cpuset import MAX_CPU, MAX_LENGTH, format_cpu_set, parse_cpu_set
from schemas.inventory import Cell, Inventory, Pages
from worker.hypervisor.devices import NodeDevice, assignable_devices
from worker.hypervisor.documents import Oddities, XmlFault, first_fault
from worker.hypervisor.encryption import Encryption
from worker.hypervisor.traits import MAX_TRAITS, cpu_traits

if TYPE_CHECKING:
    from worker.hypervisor.capabilities import HostCapabilities, HostCell

_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True)
class Observation:
    """All that an inventory is made of.

    ``online`` holds the CPUs that run, ``None`` where the driver cannot tell;
    ``cpu_count`` is then how many there are, should no cell list them.
    ``oddities`` are those of the documents that are not in the other fields.
    """

    capabilities: HostCapabilities
    memory_mib: int
    cpu_count: int
    online: frozenset[int] | None
    features: frozenset[str] = frozenset()
    encryption: Encryption = field(default_factory=Encryption)
    devices: tuple[NodeDevice, ...] = ()
    disk_gib: int = 0
    oddities: tuple[str, ...] = ()


def inventory_of(observation: Observation) -> Inventory:
    """Make the inventory of a host; what the contract cannot hold is left out, and is among its oddities.

    Raises:
        XmlFault: the contract cannot hold the host as a whole.
    """
    described = observation.capabilities
    oddities = Oddities()
    oddities.tell(*described.oddities, *observation.encryption.oddities, *observation.oddities)
    online = _fitting(_online(observation), "online", oddities)
    cells = _cells(described, online, oddities)
    threaded = any(len(core & online) > 1 for cell in described.cells for core in cell.cores)
    traits = cpu_traits(described.arch, described.features | observation.features, threaded=threaded)
    devices = assignable_devices(observation.devices, frozenset(cell.id for cell in cells), oddities)
    memory_mib = _memory_mib(observation, cells, oddities)
    try:
        return Inventory(
            cpus=format_cpu_set(online),
            memory_mib=memory_mib,
            disk_gib=observation.disk_gib,
            cells=cells,
            devices=devices,
            custom=dict(observation.encryption.slots),
            traits=sorted({*traits, *observation.encryption.traits})[:MAX_TRAITS],
            iommu=described.iommu,
            oddities=list(oddities.told),
        )
    except ValidationError as fault:
        raise XmlFault(first_fault(fault)) from None


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


def _fitting(cpus: frozenset[int], where: str, oddities: Oddities) -> frozenset[int]:
    """The CPUs that the contract can number, and write in a set of the length that it allows."""
    numbered = frozenset(cpu for cpu in cpus if 0 <= cpu <= MAX_CPU)
    text = format_cpu_set(numbered)
    if len(text) > MAX_LENGTH:
        numbered = parse_cpu_set(text[:MAX_LENGTH].rpartition(",")[0])
    if len(numbered) < len(cpus):
        oddities.tell(f"{where}: {len(cpus) - len(numbered)} CPUs are more than can be written, and left out")
    return numbered


def _memory_mib(observation: Observation, cells: list[Cell], oddities: Oddities) -> int:
    if 0 <= observation.memory_mib <= MAX_AMOUNT:
        return observation.memory_mib
    oddities.tell(f"the host's memory of {observation.memory_mib} MiB cannot be; that of its cells counts")
    return min(sum(cell.memory_mib for cell in cells), MAX_AMOUNT)


def _cells(described: HostCapabilities, online: frozenset[int], oddities: Oddities) -> list[Cell]:
    numbers = frozenset(cell.id for cell in described.cells)
    cells: list[Cell] = []
    for cell in described.cells:
        with oddities.alone(f"<cell id={cell.id}>"):
            own = _fitting(cell.cpus & online, f"<cell id={cell.id}>", oddities)
            cells.append(_cell(cell, own, described.caches, numbers))
    return cells


def _cell(cell: HostCell, cpus: frozenset[int], caches: tuple[frozenset[int], ...], numbers: frozenset[int]) -> Cell:
    return Cell(
        id=cell.id,
        socket=cell.socket,
        cpus=format_cpu_set(cpus),
        siblings=_running(cell.cores, cpus),
        dies=_running(cell.dies, cpus),
        clusters=_running(cell.clusters, cpus),
        caches=_running(caches, cpus),
        memory_mib=cell.memory_kib // 1024,
        pages=[Pages(size_kib=size, total=total) for size, total in cell.pages],
        distances={other: distance for other, distance in cell.distances if other in numbers},
    )


def _running(groups: tuple[frozenset[int], ...], cpus: frozenset[int]) -> list[str]:
    return [format_cpu_set(group & cpus) for group in groups if group & cpus]


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
