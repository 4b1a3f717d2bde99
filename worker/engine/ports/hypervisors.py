"""libvirt, as the engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from schemas import Inventory
    from worker.accounting.state.domains import Domain, DomainState


class HypervisorUnreachable(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """The hypervisor did not answer: nothing is known of it, and nothing is proven."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Hypervisors(Protocol):
    """libvirt, as the engine sees it. What asks may raise :class:`HypervisorUnreachable`."""

    def refusal(self, uri: str) -> str | None:
        """Why this address may not be opened; ``None`` if it may."""

    async def inventory(self, node: str, uri: str) -> Inventory:
        """What the node has; the same object again as long as nothing changed."""

    def host_uuid(self, node: str) -> UUID | None:
        """The UUID of the machine that answered for the node last; ``None`` where it tells none."""

    async def domain_state(self, node: str, uri: str, instance: UUID) -> DomainState:
        """Whether the instance's domain exists and runs."""

    async def domains(self, node: str, uri: str) -> Sequence[Domain]:
        """Every domain of the node."""
