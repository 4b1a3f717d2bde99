"""The commands: one pydantic model a kind, and the union of them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, cast, get_args

from pydantic import Field, StringConstraints, TypeAdapter, WithJsonSchema, model_validator

from schemas.base import WRITTEN, Identifier, Label, Model, Moment, NodeName, Text
from schemas.inventory import Inventory
from schemas.policy import Policy
from schemas.requests import DeviceRequest, Resources, Tags, Topology, Traits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION = 1
MAX_BODY_BYTES = 256 * 1024
MAX_OBJECTS = 4096
"""JSON objects in one body, each some microseconds to read; a claim of 256 instances, a device each, has 1,800."""

Version = Annotated[int, Field(ge=VERSION, le=VERSION), WithJsonSchema({"const": VERSION})]
Revision = Annotated[int, Field(ge=0, le=2**62)]
LeaseSeconds = Annotated[int, Field(ge=1, le=31_536_000)]
Devices = Annotated[list[DeviceRequest], Field(max_length=256)]


class CommandBase(Model):
    """What every command carries."""

    version: Version
    id: Identifier
    """Idempotency key, version 7 preferred: the same id with the same content is answered again, and has no effect."""
    node: NodeName
    """Where the instance is now (for a claim, where it is to go); decides the shard."""
    issued_at: Moment
    """When the producer made the command; no part of its content."""
    expires_at: Moment | None = None
    """Past this, a command that was not applied is rejected."""
    dry_run: bool = False
    """Decide and answer, and change nothing."""

    def fingerprint(self) -> bytes:
        """The content that an idempotency key stands for, in one canonical form.

        ``issued_at`` is left out: a producer that sends a command once more may
        stamp it anew. Defaults are left out: a field that a later version adds
        does not change what an older message meant.
        """
        return self.__pydantic_serializer__.to_json(self, exclude={"issued_at"}, exclude_defaults=True)


class InstanceCommand(CommandBase):
    """A command about one instance."""

    instance: Identifier
    revision: Revision | None = None
    """The producer's counter for the instance: a command at or below the last applied one is stale."""


class Shape(Model):
    """What one instance is to hold."""

    resources: Resources
    topology: Topology | None = None
    devices: Devices = []
    traits: Traits | None = None


class NodePut(CommandBase):
    """Registers a node or replaces its settings."""

    kind: Literal["node.put"]
    hypervisor: Annotated[str, StringConstraints(min_length=1, max_length=1024), WRITTEN] | None = None
    """The libvirt URI that the inventory is observed at; or give ``inventory``."""
    inventory: Inventory | None = None
    """What the node has, for a node without a hypervisor to ask."""
    policy: Policy = Policy()
    labels: Tags = {}
    """What the operator says of the node, by name, such as its rack: kept with it and shown."""
    replaces: NodeName | None = None
    """The name under which the same host is registered: that node is renamed with all it holds."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.hypervisor is None) == (self.inventory is None):
            raise ValueError("give either hypervisor or inventory")
        if self.replaces == self.node:
            raise ValueError("replaces is the node itself")
        return self


class NodeRemove(CommandBase):
    """Removes a node."""

    kind: Literal["node.remove"]
    force: bool = False
    """Also while it holds allocations, which are released."""


class ClaimMember(Shape):
    """One of several instances that are claimed all or none."""

    instance: Identifier
    node: NodeName
    revision: Revision | None = None


class Claim(CommandBase):
    """Charges the node for a new instance, or several nodes for several instances, all or none."""

    kind: Literal["claim"]
    instance: Identifier | None = None
    revision: Revision | None = None
    project: Label
    user: Label | None = None
    resources: Resources | None = None
    topology: Topology | None = None
    devices: Devices = []
    traits: Traits | None = None
    lease_seconds: LeaseSeconds | None = None
    """How long the claim stands without the instance having been seen; null: for good."""
    candidates: Annotated[list[NodeName], Field(max_length=256)] = []
    """Further nodes in order of preference: the first of ``node`` and these that fits is taken."""
    instances: Annotated[list[ClaimMember], Field(min_length=1, max_length=256)] | None = None
    """Several instances, taken all or none; ``node`` is the node of one of them."""

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if self.instances is None:
            if self.instance is None or self.resources is None:
                raise ValueError("instance and resources are missing (or give instances)")
            return self
        own = (self.instance, self.revision, self.resources, self.topology, self.traits)
        if any(part is not None for part in own) or self.devices or self.candidates:
            raise ValueError(
                "with instances, each names its own instance, resources, topology, devices, traits and node"
            )
        if self.node not in {member.node for member in self.instances}:
            raise ValueError("node must be the node of one of the instances")
        if len({member.instance for member in self.instances}) != len(self.instances):
            raise ValueError("instances names an instance twice")
        return self

    def members(self) -> Sequence[ClaimMember]:
        """The instances claimed; of a claim for one, that one on its first choice of node."""
        if self.instances is not None:
            return self.instances
        return (cast("ClaimMember", self),)  # it has a member's fields, and validation saw to it that they are set


class Resize(InstanceCommand, Shape):
    """A new size, on the same node or on another."""

    kind: Literal["resize"]
    destination: NodeName | None = None
    """The node to move to; null: the same node."""
    mode: Literal["prepare", "immediate"] = "prepare"
    """Hold both sizes until ``confirm`` or ``revert``; or, on the same node only, take effect at once."""
    lease_seconds: LeaseSeconds | None = None
    """How long a prepared move stands unconfirmed before it is reverted; null: for good."""

    @model_validator(mode="after")
    def _immediate_stays(self) -> Self:
        if self.mode == "immediate" and self.destination not in {None, self.node}:
            raise ValueError("an immediate resize stays on its node: leave destination out")
        if self.mode == "immediate" and self.lease_seconds is not None:
            raise ValueError("an immediate resize has no lease")
        return self


class Migrate(InstanceCommand):
    """The same size on another node; both sides are held until ``confirm`` or ``revert``."""

    kind: Literal["migrate"]
    destination: NodeName
    reason: Literal["live", "cold", "evacuate"]
    topology: Topology | None = None
    """Replaces the instance's own; null: as it is."""
    devices: Devices | None = None
    """Replaces the instance's own; null: as they are."""
    traits: Traits | None = None
    """Replaces the instance's own; null: as they are."""
    lease_seconds: LeaseSeconds | None = None
    """How long the move stands unconfirmed before it is reverted; null: for good."""

    @model_validator(mode="after")
    def _elsewhere(self) -> Self:
        if self.destination == self.node:
            raise ValueError("destination is the node itself")
        return self


class Confirm(InstanceCommand):
    """The open move is final: the old side is released."""

    kind: Literal["confirm"]


class Revert(InstanceCommand):
    """The open move is undone: the new side is released."""

    kind: Literal["revert"]


class Abort(InstanceCommand):
    """A build failed: its claim is released and the instance may be claimed again.

    On the destination of an open move, the move is undone as by a ``revert``.
    """

    kind: Literal["abort"]
    reason: Text | None = None


class Update(InstanceCommand):
    """Reports where an instance is in its life."""

    kind: Literal["update"]
    state: Label | None = None
    task: Label | None = None
    os_type: Label | None = None


class Delete(InstanceCommand):
    """Releases everything the instance holds on every node, and leaves a tombstone."""

    kind: Literal["delete"]
    verify: bool | None = None
    """Release only once the domain is gone; null: as the node's policy says."""


class Audit(CommandBase):
    """Reconciles the node with its hypervisor."""

    kind: Literal["audit"]
    repair: bool = False
    """Fix what can be fixed, not only report it."""


Command = NodePut | NodeRemove | Claim | Resize | Migrate | Confirm | Revert | Abort | Update | Delete | Audit
AnyCommand = Annotated[Command, Field(discriminator="kind")]

COMMAND: TypeAdapter[Command] = TypeAdapter(AnyCommand)
"""Validates any command; see :func:`schemas.parsing.parse_command` for bytes from a queue."""


def kind_of(model: type[Command]) -> str:
    """The kind of the commands that a model reads."""
    return str(get_args(model.model_fields["kind"].annotation)[0])


MODELS: Final[Mapping[str, type[Command]]] = {kind_of(model): model for model in get_args(Command)}
"""The model of each kind: every list of kinds is taken from here."""

KINDS: Final = frozenset(MODELS)
