"""What an instance asks for: amounts, topology, devices and traits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.addresses import AddressPattern
from schemas.base import (
    BY_KEY,
    Amount,
    Gibibytes,
    HexId,
    Label,
    Model,
    PositiveAmount,
    ResourceName,
    TraitName,
)
from schemas.cpuset import CpuSet

CpuPolicy = Literal["shared", "dedicated", "mixed"]
ThreadPolicy = Literal["prefer", "isolate", "require"]
CachePolicy = Literal["prefer", "require"]
EmulatorThreads = Literal["share", "isolate"]
PageSize = Literal["small", "large", "any"] | Annotated[int, Field(ge=1, le=2**40)]
DeviceType = Literal["pci", "pf", "vf", "vdpa", "mdev"]
Affinity = Literal["required", "legacy", "preferred", "socket"]
Tags = Annotated[dict[Label, Label], Field(max_length=64), BY_KEY]
CellCount = Annotated[int, Field(ge=1, le=1024)]


class Disk(Model):
    """Local disk of an instance."""

    root_gib: Gibibytes = 0
    ephemeral_gib: Gibibytes = 0
    swap_mib: Amount = 0
    boot_from_volume: bool = False
    """The root disk lies on a volume and takes no local disk."""

    @property
    def total_mib(self) -> int:
        """Local disk charged, in MiB."""
        root = 0 if self.boot_from_volume else self.root_gib
        return (root + self.ephemeral_gib) * 1024 + self.swap_mib


class Resources(Model):
    """The plain amounts an instance asks for."""

    vcpus: Annotated[int, Field(ge=1, le=65_536)]
    memory_mib: PositiveAmount
    disk: Disk = Disk()
    custom: Annotated[dict[ResourceName, PositiveAmount], Field(max_length=256), BY_KEY] = {}
    """A producer's own resources, which the node's inventory counts."""


class GuestCell(Model):
    """One NUMA cell of the guest: its vCPUs and its memory."""

    vcpus: CpuSet
    memory_mib: PositiveAmount


GuestCells = Annotated[list[GuestCell], Field(min_length=1, max_length=1024)]


class Networks(Model):
    """Networks whose cells the guest should be near: physical networks and the tunnel."""

    physnets: Annotated[list[Label], Field(max_length=64)] = []
    tunneled: bool = False


class Topology(Model):
    """How the guest's CPUs and memory lie on the host's cells."""

    cpu_policy: CpuPolicy = "shared"
    thread_policy: ThreadPolicy | None = None
    """How dedicated vCPUs use the threads of a core: together, alone on it, or only together; null: no matter."""
    emulator_threads: EmulatorThreads | None = None
    """Where the emulator runs: on the shared CPUs, or on a dedicated CPU more; null: with the vCPUs."""
    dedicated_vcpus: CpuSet | None = None
    """The vCPUs with a host CPU of their own, where the policy is ``mixed``."""
    realtime_vcpus: CpuSet | None = None
    """The vCPUs scheduled in real time; the others do the guest's housekeeping."""
    page_size: PageSize | None = None
    """A class of page sizes, or a size in KiB; null: whatever the host does by itself."""
    cells: CellCount | GuestCells | None = None
    """Guest NUMA cells: how many equal ones, or each with its vCPUs and memory."""
    networks: Networks | None = None
    cache: CachePolicy | None = None
    """Dedicated vCPUs of each cell within few last-level caches; null: no matter.

    ``prefer``: the fewest that are free, once cells and siblings are chosen. ``require``: the fewest
    that could hold them on their host cell if nobody else were there, or the request is refused.
    """
    locked_memory: bool = False


class DeviceMatch(Model):
    """Properties a device must have; those not named do not matter."""

    vendor: HexId | None = None
    product: HexId | None = None
    address: AddressPattern | None = None
    """May hold ``*`` and ``?``; ``0000:3B:*`` and ``0:3b:*`` are the same."""
    mdev_type: Label | None = None
    """A type of mediated devices, such as ``nvidia-35``."""
    tags: Tags = {}
    """Each must be there and equal."""


class DeviceRequest(Model):
    """``count`` devices, each fulfilling any one of ``match``."""

    name: Label
    count: Annotated[int, Field(ge=1, le=256)] = 1
    match: Annotated[list[DeviceMatch], Field(min_length=1, max_length=64)]
    type: DeviceType | None = None
    affinity: Affinity = "legacy"
    """How near the guest's cells: on one of them, there or on no known cell, there if possible, or on its socket."""
    live_migratable: bool | None = None
    """Only devices that can, or cannot, be moved live; null: no matter."""


class Traits(Model):
    """Qualities the node must have, and must not have."""

    required: Annotated[list[TraitName], Field(max_length=256)] = []
    forbidden: Annotated[list[TraitName], Field(max_length=256)] = []
