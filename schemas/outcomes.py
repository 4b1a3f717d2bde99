"""What a worker answers: a status, the assignment, the node's usage, and every reason for a refusal."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from schemas.base import Identifier, Model, Moment
from schemas.commands import VERSION, Version
from schemas.requests import DeviceType

Status = Literal["applied", "rejected", "parked", "dead"]
ReasonCode = Literal[
    "insufficient", "below_minimum", "above_maximum", "not_a_multiple", "unknown_resource", "no_numa_fit",
    "no_device_fit", "node_unknown", "node_disabled", "node_in_use", "instance_exists", "instance_unknown",
    "move_in_progress", "no_move", "superseded", "stale", "expired", "hypervisor_unreachable", "domain_still_running",
    "hypervisor_not_allowed", "hypervisor_taken", "not_permitted", "missing_trait", "invalid_request", "too_complex",
]  # fmt: skip
NoticeCode = Literal[
    "hypervisor_unreachable", "cpu_not_dedicated", "device_not_offered", "used_above_capacity",
    "reserved_pages_unknown", "siblings_withheld",
]  # fmt: skip
DeadReason = Literal[
    "malformed", "too_large", "unknown_kind", "unsupported_version", "id_reuse", "misrouted", "poison",
    "hypervisor_timeout", "expired_in_queue",
]  # fmt: skip


class Answer(Model):
    """A part of an answer: readers pass over fields that a later release adds."""

    model_config = ConfigDict(extra="ignore")


class Reason(Answer):
    """Why something was refused: a code to act on, the numbers behind it, and a sentence."""

    code: ReasonCode
    detail: str
    """The reason as a sentence for people; its wording may change."""
    node: str | None = None
    instance: Identifier | None = None
    """The member of a claim for several that the reason is about."""
    resource: str | None = None
    requested: int | None = None
    used: int | None = None
    """Of ``resource`` on ``node``, before the command."""
    capacity: int | None = None
    """Of ``resource`` on ``node``, before the command."""
    short_by: int | None = None
    """How much more capacity would have let it through."""
    cells: list[dict[str, object]] | None = None
    """What each host cell that was tried lacked."""
    devices: list[dict[str, object]] | None = None
    """What each device that was looked at lacked, or who holds it."""


class Notice(Answer):
    """Something worth knowing about a command that was applied: a code to act on, and a sentence."""

    code: NoticeCode
    detail: str
    """The sentence for people; its wording may change."""


class AssignedCell(Answer):
    """Where one guest cell lies."""

    guest_cell: int
    host_cell: int
    memory_mib: int
    page_size_kib: int | None = None
    pins: dict[str, int] = {}
    """The host CPU of each dedicated vCPU."""
    shared_vcpus: str = ""
    """The vCPUs that float over ``shared_cpus``."""
    shared_cpus: str = ""
    emulator_cpus: str = ""
    """Where the emulator's threads run when they have CPUs of their own."""


class AssignedDevice(Answer):
    """A device handed to the instance; for a mediated device, its parent's address and its type."""

    name: str
    address: str
    mdev_type: str | None = None
    type: DeviceType | None = None
    cell: int | None = None
    """The host cell it is on; null where that is not known."""
    parent: str | None = None
    """Address of a virtual function's physical one, or of the device that a mediated device lives on."""


class Assignment(Answer):
    """What the hypervisor's domain XML needs."""

    cells: list[AssignedCell] = []
    shared_cpus: str | None = None
    """Where vCPUs without a host CPU of their own and the emulator run; null: anywhere."""
    devices: list[AssignedDevice] = []


class Usage(Answer):
    """One resource of a node."""

    used: int
    capacity: int


class MemberAssignment(Answer):
    """The assignment of one instance of a claim for several."""

    instance: Identifier
    node: str
    assignment: Assignment


class DeadLettered(Answer):
    """Why a command is in the dead letters."""

    reason: DeadReason
    detail: str
    """The reason as a sentence for people; its wording may change."""


class Outcome(Answer):
    """The answer to one command."""

    version: Version = VERSION
    command: Identifier
    kind: str
    status: Status
    """``applied`` and ``rejected`` are final; ``parked`` and ``dead`` may still be followed by one of them."""
    sequence: int = 0
    """Counts the outcomes of a command, from 1; of two the higher holds, in whatever order they arrive.

    0 is the answer to a message that never became this command.
    """
    node: str
    instance: Identifier | None = None
    at: Moment
    """When it was decided."""
    generation: int = 0
    """The node's version after the command; 0 where there is no node."""
    dry_run: bool = False
    assignment: Assignment | None = None
    assignments: list[MemberAssignment] | None = None
    usage: dict[str, Usage] = {}
    """The node's plain resources after the command."""
    reasons: list[Reason] = []
    """Every reason, not only the first."""
    warnings: list[Notice] = []
    """What is worth knowing though the command was applied."""
    drift: list[dict[str, object]] | None = None
    """What an audit found to differ between ledger and hypervisor."""
    dead_letter: DeadLettered | None = None
    """Given where ``status`` is ``dead``."""
