"""Domains of a hypervisor, as far as decisions look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from uuid import UUID

DomainState = Literal["absent", "shut_off", "running"]


class Domain(Protocol):
    """A domain as its hypervisor knows it; see :class:`worker.hypervisor.domains.Domain`."""

    @property
    def uuid(self) -> UUID:
        """Its UUID, which is its instance."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def active(self) -> bool:
        """Whether it runs."""

    @property
    def vcpus(self) -> int:
        """Its vCPUs."""

    @property
    def memory_mib(self) -> int:
        """Its memory, in MiB."""

    @property
    def pinned_cpus(self) -> frozenset[int]:
        """Host CPUs a vCPU is pinned to alone."""

    @property
    def devices(self) -> tuple[str, ...]:
        """PCI addresses it was given."""

    @property
    def fault(self) -> str | None:
        """Why its description cannot be read, if it cannot."""
