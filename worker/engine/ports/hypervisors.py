"""libvirt, as the engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from schemas import Inventory
    from worker.accounting.state.domains import Domain, DomainState
    from worker.accounting.state.load import Load


class HypervisorUnreachable(NodeledgerError):  # noqa: N818 - a state of the world, not a mistake
    """The hypervisor did not answer: nothing is known of it, and nothing is proven."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Listener(Protocol):
    """Who is told what happens on hypervisors. Called in the event loop's thread; must not block or raise."""

    def happened(self, node: str) -> None:
        """Something changed there: a domain, a device or the connection."""

    def fell_silent(self, node: str, uri: str, detail: str) -> None:
        """It does not answer any more."""

    def came_back(self, node: str, uri: str) -> None:
        """It answers again."""


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

    async def load(self, node: str, uri: str) -> Load | None:
        """How busy the host was since it was asked before; ``None`` where it does not tell."""

    def report_to(self, listener: Listener) -> None:
        """Tell somebody what happens on watched nodes, and which nodes stop answering and answer again."""

    def watch(self, node: str, uri: str) -> bool:
        """Listen to a node from the next call to it on; says whether it tells anything, as far as that is known."""

    def unwatch(self, node: str) -> None:
        """Listen no more, and give the connection up."""

    async def knock(self, node: str) -> bool:
        """Whether a node that failed may be back; if so, the next call asks it at once."""
