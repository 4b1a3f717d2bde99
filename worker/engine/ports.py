"""What the engine needs of the world: a broker, and hypervisors.

The ledger is not behind a port of its own: the engine is the road to it, and
its transaction is the heart of :mod:`worker.engine.commit`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from schemas import Inventory

DomainState = Literal["absent", "shut_off", "running"]


class HypervisorUnreachable(Exception):  # noqa: N818 - a state of the world, not a mistake
    """The hypervisor did not answer: nothing is known of it, and nothing is proven."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BrokerUnavailable(Exception):  # noqa: N818 - a state of the world, not a mistake
    """The broker is away or did not confirm in time; what was sent may or may not have arrived."""


@dataclass(slots=True)
class Delivery:
    """One message as the broker delivered it.

    ``received_at`` is the loop's monotonic time in seconds. ``tag`` and
    ``source`` belong to the broker adapter: they find the way back for the
    acknowledgement, and are worthless once the channel is gone.
    """

    shard: int
    body: bytes
    tag: int
    source: object
    redelivered: bool
    received_at: float
    reply_to: str | None = None
    correlation_id: str | None = None
    user_id: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Outgoing:
    """A message to publish: an outcome, or its copy to ``reply_to`` through the default exchange."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    correlation_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class DeadLetter:
    """A message that cannot be applied: its raw bytes, and why."""

    body: bytes
    reason: str
    detail: str
    command: UUID | None = None
    node: str | None = None
    kind: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)


class Broker(Protocol):
    """RabbitMQ, as the engine sees it."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish and wait for every confirm.

        Raises:
            BrokerUnavailable: at least one was not confirmed; publishing all
                again is safe, since receivers know an outcome by its command.
        """

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Put messages safely into the dead letters.

        Raises:
            BrokerUnavailable: at least one was not confirmed.
        """

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Mark deliveries as finished; each channel acknowledges up to its highest finished tag without a gap."""


class Hypervisors(Protocol):
    """libvirt, as the engine sees it. Every method may raise :class:`HypervisorUnreachable`."""

    def refusal(self, uri: str) -> str | None:
        """Why this address may not be opened; ``None`` if it may."""

    async def inventory(self, node: str, uri: str) -> Inventory:
        """What the node has; the same object again as long as nothing changed."""

    async def domain_state(self, node: str, uri: str, instance: UUID) -> DomainState:
        """Whether the instance's domain exists and runs."""


