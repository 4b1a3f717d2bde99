"""What the operator set for a node: ratios, reserved amounts, CPU sets, devices, limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.addresses import AddressPattern
from schemas.base import (
    BY_KEY,
    Amount,
    CellId,
    Gibibytes,
    HexId,
    Label,
    Model,
    Percent,
    PositiveAmount,
    Ratio,
    ResourceName,
    TraitName,
)
from schemas.cpuset import CpuSet, lowest_cpu, parse_cpu_mask
from schemas.requests import DeviceType, Tags

LimitedResource = Literal["vcpus", "pcpus", "memory_mib", "disk_mib"] | ResourceName


class Ratios(Model):
    """How often a resource may be handed out: ``capacity = floor((total - reserved) * ratio)``."""

    vcpus: Ratio = Decimal("4.0")
    memory: Ratio = Decimal("1.0")
    disk: Ratio = Decimal("1.0")


class ReservedPages(Model):
    """Pages of one size on one cell that are kept from guests."""

    cell: CellId
    size_kib: PositiveAmount
    count: Amount


class Reserved(Model):
    """What is kept for the host itself."""

    vcpus: Amount = 0
    memory_mib: Amount = 512
    disk_gib: Gibibytes = 0
    pages: Annotated[list[ReservedPages], Field(max_length=4096)] = []

    @model_validator(mode="after")
    def _once(self) -> Self:
        seen: set[tuple[int, int]] = set()
        for pages in self.pages:
            if (pages.cell, pages.size_kib) in seen:
                raise ValueError(f"pages of {pages.size_kib} KiB on cell {pages.cell} are reserved twice")
            seen.add((pages.cell, pages.size_kib))
        return self


class Overhead(Model):
    """Memory the hypervisor itself needs for one instance; the percentage is of the instance's memory, rounded up."""

    memory_mib: Amount = 0
    memory_mib_per_vcpu: Amount = 0
    memory_percent: Percent = Decimal(0)


class Limit(Model):
    """Bounds on what one instance may ask of one resource."""

    min: Amount = 0
    max: Amount | None = None
    step: PositiveAmount = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError("max is below min")
        return self


class DevicePattern(Model):
    """Devices that may be handed out; fields not named do not matter. ``tags`` are given to the devices it admits."""

    vendor: HexId | None = None
    product: HexId | None = None
    address: AddressPattern | None = None
    type: DeviceType | None = None
    tags: Tags = {}
    live_migratable: bool | None = None
    mdev_types: Annotated[list[Label], Field(max_length=64)] | None = None


class Policy(Model):
    """An operator's settings for one node."""

    enabled: bool = True
    """False refuses all growth; what is held stays, and may shrink and go."""
    ratios: Ratios = Ratios()
    reserved: Reserved = Reserved()
    overhead: Overhead = Overhead()
    shared_cpus: CpuSet | None = None
    """Host CPUs that shared vCPUs float over; null: all, or none where ``dedicated_cpus`` is given."""
    dedicated_cpus: CpuSet | None = None
    """Host CPUs that are given to one instance alone; null: none."""
    cell_strategy: Literal["spread", "pack"] = "spread"
    """Use the emptiest host cells first, or the fullest."""
    devices: Annotated[list[DevicePattern], Field(max_length=1024)] | None = None
    """Which devices may be handed out.

    Null: every device of a pushed inventory and none of an observed one, since
    a hypervisor also reports the devices that its host lives on.
    """
    limits: Annotated[dict[LimitedResource, Limit], Field(max_length=256), BY_KEY] = {}
    """What one instance may ask for.

    ``vcpus`` bounds shared vCPUs alone, ``pcpus`` host CPUs of an instance's
    own, one for its emulator threads included.
    """
    custom: Annotated[dict[ResourceName, Amount], Field(max_length=256), BY_KEY] = {}
    """Resources that the node has beside what its hypervisor tells, such as licences.

    A pushed inventory that names one of them too is refused.
    """
    traits: Annotated[list[TraitName], Field(max_length=4096)] = []
    verify_deletes: bool = True
    """A delete releases only once the hypervisor says that the domain is gone."""
    max_inventory_age_seconds: Annotated[int, Field(ge=0, le=86_400)] = 60
    """How old what is known of the hardware may be when a decision needs it."""
    audit_interval_seconds: Annotated[int, Field(ge=0, le=604_800)] | None = None
    """How often the node is compared with its hypervisor; 0: never, null: as the workers are set."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if self.shared_cpus is not None and self.dedicated_cpus is not None:
            both = parse_cpu_mask(self.shared_cpus) & parse_cpu_mask(self.dedicated_cpus)
            if both:
                raise ValueError(f"CPU {lowest_cpu(both)} is in shared_cpus and in dedicated_cpus")
        return self
