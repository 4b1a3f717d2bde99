"""What a node has, as its hypervisor reports it or as a producer pushes it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import FailFast, Field, model_validator

from schemas.addresses import DeviceAddress
from schemas.base import BY_KEY, Amount, CellId, Gibibytes, HexId, Label, Model, PositiveAmount, ResourceName, TraitName
from schemas.cpuset import CpuSet, lowest_cpu, parse_cpu_mask
from schemas.requests import DeviceType, Tags

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
    memory_mib: Amount
    pages: Annotated[list[Pages], Field(max_length=64)] = []
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
    tags: Tags = {}
    live_migratable: bool | None = None
    mdev_types: Annotated[dict[Label, Amount], Field(max_length=256), BY_KEY] = {}
    """How many mediated devices of each type it can carry when it carries no other."""


class Inventory(Model):
    """Everything a node has."""

    cpus: CpuSet
    memory_mib: Amount
    disk_gib: Gibibytes = 0
    cells: Annotated[list[Cell], Field(max_length=1024), FailFast()] = []
    """Empty for a host without NUMA knowledge."""
    devices: Annotated[list[Device], Field(max_length=65_536), FailFast()] = []
    custom: Annotated[dict[ResourceName, Amount], Field(max_length=256), BY_KEY] = {}
    traits: Annotated[list[TraitName], Field(max_length=4096)] = []

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
            for what, groups in (("sibling sets", cell.siblings), ("dies", cell.dies), ("clusters", cell.clusters)):
                _check_apart(f"{what} of cell {cell.id}", groups)
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
