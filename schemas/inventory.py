"""What a node has, as its hypervisor reports it or as a producer pushes it."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import FailFast, Field, model_validator

from schemas.addresses import DeviceAddress
from schemas.base import BY_KEY, Amount, CellId, Gibibytes, HexId, Label, Model, PositiveAmount, ResourceName, TraitName
from schemas.cpuset import CpuSet, lowest_cpu, parse_cpu_mask
from schemas.requests import DeviceType, Tags

MAX_CELLS: Final = 1024
MAX_DEVICES: Final = 65_536
MAX_PAGE_SIZES: Final = 64
MAX_MDEV_TYPES: Final = 256
MAX_ODDITIES: Final = 64
"""Enough to see what is wrong with a host, however much that is."""

Distance = Annotated[int, Field(ge=0, le=255)]
CpuGroups = Annotated[list[CpuSet], Field(max_length=65_536), FailFast()]


class Pages(Model):
    """Memory pages of one size on one cell: ``total`` of them, of ``size_kib`` KiB each."""

    size_kib: PositiveAmount
    total: Amount


class Cell(Model):
    """One NUMA cell of the host."""

    id: CellId
    socket: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Null where it is not known."""
    cpus: CpuSet
    siblings: CpuGroups = []
    """The threads of each core; a CPU named in none of them is a core of its own."""
    dies: CpuGroups = []
    """The CPUs of each die, as far as the host tells them."""
    clusters: CpuGroups = []
    """The CPUs of each cluster (cores that share a cache or a bus), as far as the host tells them."""
    caches: CpuGroups = []
    """The CPUs of each last-level cache, as far as the host tells them and they lie in this cell."""
    distances: Annotated[dict[CellId, Distance], Field(max_length=MAX_CELLS)] = {}
    """How far other cells' memory is, in tenths of a local access (10 is the cell itself), where it is known."""
    memory_mib: Amount
    pages: Annotated[list[Pages], Field(max_length=MAX_PAGE_SIZES)] = []
    physnets: Annotated[list[Label], Field(max_length=64)] = []
    tunneled: bool = False


class Device(Model):
    """A device that can be handed to a guest."""

    address: DeviceAddress
    vendor: HexId
    product: HexId
    type: DeviceType = "pci"
    parent: DeviceAddress | None = None
    """Address of a virtual function's physical one, or of the device that a mediated device lives on."""
    cell: CellId | None = None
    driver: Label | None = None
    """The host's driver that it is bound to, where it is known and there is one."""
    tags: Tags = {}
    live_migratable: bool | None = None
    mdev_types: Annotated[dict[Label, Amount], Field(max_length=MAX_MDEV_TYPES), BY_KEY] = {}
    """How many mediated devices of each type it can carry when it carries no other."""


class Inventory(Model):
    """Everything a node has."""

    cpus: CpuSet
    memory_mib: Amount
    disk_gib: Gibibytes = 0
    cells: Annotated[list[Cell], Field(max_length=MAX_CELLS), FailFast()] = []
    """Empty for a host without NUMA knowledge."""
    devices: Annotated[list[Device], Field(max_length=MAX_DEVICES), FailFast()] = []
    custom: Annotated[dict[ResourceName, Amount], Field(max_length=256), BY_KEY] = {}
    traits: Annotated[list[TraitName], Field(max_length=4096)] = []
    iommu: bool | None = None
    """Whether devices can be given to guests at all; null: not known."""
    oddities: Annotated[list[Label], Field(max_length=MAX_ODDITIES)] = []
    """What the host said of itself that could not be used, in sentences: each was left out, and nothing else."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        cells: set[int] = set()
        cpus = 0
        for cell in self.cells:
            if cell.id in cells:
                raise ValueError(f"cell {cell.id} is listed twice")
            cells.add(cell.id)
            own = parse_cpu_mask(cell.cpus)
            if twice := cpus & own:
                raise ValueError(f"CPU {lowest_cpu(twice)} is in two cells")
            cpus |= own
            groups = (
                ("sibling sets", cell.siblings),
                ("dies", cell.dies),
                ("clusters", cell.clusters),
                ("caches", cell.caches),
            )
            for what, apart in groups:
                _check_apart(f"{what} of cell {cell.id}", apart)
            if len({pages.size_kib for pages in cell.pages}) != len(cell.pages):
                raise ValueError(f"cell {cell.id} lists a page size twice")
        addresses = [device.address for device in self.devices]
        if len(addresses) != len(set(addresses)):
            raise ValueError("a device address is listed twice")
        return self


def _check_apart(what: str, groups: list[CpuSet]) -> None:
    members = 0
    for group in groups:
        own = parse_cpu_mask(group)
        if twice := members & own:
            raise ValueError(f"CPU {lowest_cpu(twice)} is in two {what}")
        members |= own
