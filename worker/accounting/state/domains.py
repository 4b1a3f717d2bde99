"""Domains of a hypervisor, as decisions see them: what each uses of its host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from uuid import UUID

DomainState = Literal["absent", "shut_off", "running"]

NOWHERE: Mapping[int, frozenset[int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DomainMemory:
    """Memory of one guest cell; a guest without cells of its own is cell 0.

    ``page_size_kib`` is ``None`` for ordinary pages and 0 for huge ones of the
    host's default size. ``host_cells`` are those it is taken from, none where
    nothing binds it.
    """

    guest_cell: int
    memory_mib: int
    page_size_kib: int | None = None
    host_cells: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain.

    ``vcpu_cpus`` gives, for each vCPU in use that is confined, the host CPUs it may
    run on; ``emulator_cpus`` and ``io_cpus`` are those of the emulator's and of
    the I/O threads, ``None`` where nothing confines them. ``memory_mib`` is memory
    of the host, without persistent memory, and ``memory`` is where it lies.
    ``devices`` are PCI addresses; ``mediated`` are the parents and types of
    mediated devices; ``unknown`` are devices that the host does not tell of.
    Where the description cannot be used, ``fault`` says why, and what it uses
    is not known: a guest's owner may have written into it, and must not hide the
    other domains by that.
    """

    uuid: UUID
    name: str = ""
    active: bool = True
    vcpus: int = 0
    memory_mib: int = 0
    vcpu_cpus: Mapping[int, frozenset[int]] = field(default_factory=lambda: NOWHERE)
    emulator_cpus: frozenset[int] | None = None
    io_cpus: frozenset[int] | None = None
    memory: tuple[DomainMemory, ...] = ()
    devices: tuple[str, ...] = ()
    mediated: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    fault: str | None = None
