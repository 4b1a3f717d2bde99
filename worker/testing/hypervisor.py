"""Hypervisors that say what a test has them say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from schemas import Inventory
from worker.accounting.state.domains import Domain, DomainState


@dataclass(slots=True)
class MemoryHypervisor:
    """What the hypervisor at an address says; with ``answers`` false, nothing."""

    inventory: Inventory
    domains: Sequence[Domain] = ()
    answers: bool = True

    def state(self, instance: UUID) -> DomainState:
        """Whether an instance's domain exists and runs."""
        found = next((domain for domain in self.domains if domain.uuid == instance), None)
        if found is None:
            return "absent"
        return "running" if found.active else "shut_off"
