"""What a worker answers: a status, the assignment, the node's usage, and every reason for a refusal."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from schemas.base import Identifier, Model, Moment
from schemas.commands import VERSION, Version

Status = Literal["applied", "rejected", "parked", "dead"]
ReasonCode = Literal[
    "insufficient", "below_minimum", "above_maximum", "not_a_multiple", "unknown_resource", "no_numa_fit",
    "no_device_fit", "node_unknown", "node_disabled", "node_in_use", "instance_exists", "instance_unknown",
    "move_in_progress", "no_move", "superseded", "stale", "expired", "hypervisor_unreachable", "domain_still_running",
    "hypervisor_not_allowed", "not_permitted", "missing_trait", "invalid_request",
]  # fmt: skip
DeadReason = Literal[
    "malformed", "too_large", "unknown_kind", "unsupported_version", "id_reuse", "misrouted", "poison",
    "hypervisor_timeout",
]  # fmt: skip


class Answer(Model):
    """A part of an answer: readers pass over fields that a later release adds."""

    model_config = ConfigDict(extra="ignore")


class Reason(Answer):
    """Why something was refused: a code to act on, the numbers behind it, and a sentence.

    ``used`` and ``capacity`` are those of ``resource`` on ``node`` before the
    command; ``short_by`` is how much more capacity would have let it through.
    ``cells`` and ``devices`` say what each host cell and device lacked.
    """

    code: ReasonCode
    detail: str
    node: str | None = None
    resource: str | None = None
    requested: int | None = None
    used: int | None = None
    capacity: int | None = None
    short_by: int | None = None
    cells: list[dict[str, object]] | None = None
    devices: list[dict[str, object]] | None = None


class AssignedCell(Answer):
    """Where one guest cell lies.

    ``pins`` maps each dedicated vCPU to its host CPU. ``shared_vcpus`` float
    over ``shared_cpus`` of the host cell. ``emulator_cpus`` is where the
    emulator threads run when they have CPUs of their own.
    """

    guest_cell: int
    host_cell: int
    memory_mib: int
    page_size_kib: int | None = None
    pins: dict[str, int] = {}
    shared_vcpus: str = ""
    shared_cpus: str = ""
    emulator_cpus: str = ""


class AssignedDevice(Answer):
    """A device handed to the instance; for a mediated device, its parent's address and its type."""

    name: str
    address: str
    mdev_type: str | None = None


class Assignment(Answer):
    """What the hypervisor's domain XML needs."""

    cells: list[AssignedCell] = []
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


class Outcome(Answer):
    """The answer to one command. ``generation`` is the node's after it; 0 where there is no node."""

    version: Version = VERSION
    command: Identifier
    kind: str
    status: Status
    node: str
    instance: Identifier | None = None
    at: Moment
    generation: int = 0
    dry_run: bool = False
    assignment: Assignment | None = None
    assignments: list[MemberAssignment] | None = None
    usage: dict[str, Usage] = {}
    reasons: list[Reason] = []
    drift: list[dict[str, object]] | None = None
