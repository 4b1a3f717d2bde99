"""What a node has, as its hypervisor reports it or as a producer pushes it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Amount, CellId, Gibibytes, HexId, Label, Model, PositiveAmount, ResourceName, TraitName
from schemas.cpuset import CpuSet, parse_cpu_set
from schemas.requests import DeviceType

DeviceAddress = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9:._-]{0,127}$")]


class Pages(Model):
    """Memory pages of one size on one cell: ``total`` of them, of ``size_kib`` KiB each."""

    size_kib: PositiveAmount
    total: Amount


class Cell(Model):
    """One NUMA cell of the host.

    ``siblings`` lists the threads of each core; a CPU named in none of them is
    a core of its own. ``socket`` is null where it is not known.
    """

    id: CellId
    socket: Annotated[int, Field(ge=0, le=65_535)] | None = None
    cpus: CpuSet
    siblings: Annotated[list[CpuSet], Field(max_length=65_536)] = []
    memory_mib: Amount
    pages: Annotated[list[Pages], Field(max_length=64)] = []
    physnets: Annotated[list[Label], Field(max_length=64)] = []
    tunneled: bool = False


class Device(Model):
    """A device that can be handed to a guest.

    ``parent`` is the address of the physical function of a virtual one, or of
    the device a mediated device lives on. ``mdev_types`` gives, for a device
    that can carry mediated devices, how many of each type it can carry when it
    carries no other.
    """

    address: DeviceAddress
    vendor: HexId
    product: HexId
    type: DeviceType = "pci"
    parent: DeviceAddress | None = None
    cell: CellId | None = None
    tags: dict[Label, Label] = {}
    live_migratable: bool | None = None
    mdev_types: dict[Label, Amount] = {}


class Inventory(Model):
    """Everything a node has. ``cells`` may be empty: a host without NUMA knowledge."""

    cpus: CpuSet
    memory_mib: Amount
    disk_gib: Gibibytes = 0
    cells: Annotated[list[Cell], Field(max_length=1024)] = []
    devices: Annotated[list[Device], Field(max_length=65_536)] = []
    custom: dict[ResourceName, Amount] = {}
    traits: Annotated[list[TraitName], Field(max_length=4096)] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[int] = set()
        ids: set[int] = set()
        for cell in self.cells:
            if cell.id in ids:
                raise ValueError(f"cell {cell.id} is listed twice")
            ids.add(cell.id)
            cpus = parse_cpu_set(cell.cpus)
            if twice := seen & cpus:
                raise ValueError(f"CPU {min(twice)} is in two cells")
            seen |= cpus
            threads: set[int] = set()
            for core in cell.siblings:
                members = parse_cpu_set(core)
                if twice := threads & members:
                    raise ValueError(f"CPU {min(twice)} is in two sibling sets of cell {cell.id}")
                threads |= members
        addresses = [device.address for device in self.devices]
        if len(addresses) != len(set(addresses)):
            raise ValueError("a device address is listed twice")
        return self
