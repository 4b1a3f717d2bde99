"""A method a kind: from typed arguments, which are the models' own, to a command with an id."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from secrets import randbits
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack
from uuid import UUID

from pydantic_core import to_json

from schemas.commands import VERSION, ClaimMember, Command
from schemas.errors import RejectedError
from schemas.inventory import Inventory
from schemas.outcomes import Outcome
from schemas.parsing import parse_command
from schemas.policy import Policy
from schemas.requests import DeviceRequest, Disk, Topology, Traits

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
"""What asking gives: an outcome, or something to await one."""


class Asking(TypedDict, total=False):
    """How to wait for an answer.

    ``seconds`` is how long; ``on_parked`` is called with an outcome that says
    that the command waits for its hypervisor; with ``raising`` a refusal is a
    :class:`~schemas.errors.RejectedError`.
    """

    seconds: float
    on_parked: Callable[[Outcome], object] | None
    raising: bool


class Options(Asking, total=False):
    """What every method takes besides its own: fields of every command, and how to wait."""

    id: UUID
    expires_at: datetime | None
    dry_run: bool


_HOW = frozenset(Asking.__annotations__)


def uuid7() -> UUID:
    """A version 7 UUID: milliseconds of the Unix time, twelve more bits of it, and chance."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | randbits(62))


def command_of(kind: str, node: str, **fields: Any) -> Command:
    """A command with an id of its own unless one is given; fields that are ``None`` are left to their defaults.

    A field may be of the models' own type, or what stands for it in JSON.

    Raises:
        MalformedCommandError: a field is missing or wrong; it names which.
    """
    given = _given(**fields) or {}
    stamp = {"version": VERSION, "id": uuid7(), "issued_at": datetime.now(UTC)}
    return parse_command(to_json({**stamp, "kind": kind, "node": node, **given}))


def judged(outcome: Outcome, *, raising: bool) -> Outcome:
    """The outcome.

    Raises:
        RejectedError: it was not applied, and that is to be an error.
    """
    if raising and outcome.status != "applied":
        raise RejectedError(outcome)
    return outcome


class Ledger(ABC, Generic[R_co]):
    """Whoever takes commands and answers them; each method sends one of its kind and gives what ``send`` gives."""

    @abstractmethod
    def send(self, command: Command, **how: Unpack[Asking]) -> R_co:
        """Send a command and wait for its final outcome, or for word that it is dead."""

    def _ask(self, kind: str, node: str, fields: Mapping[str, object], options: Options) -> R_co:
        how: Any = {name: value for name, value in options.items() if name in _HOW}
        own = {name: value for name, value in options.items() if name not in _HOW}
        return self.send(command_of(kind, node, **fields, **own), **how)

    def node_put(
        self,
        node: str,
        *,
        hypervisor: str | None = None,
        inventory: Inventory | None = None,
        policy: Policy | None = None,
        labels: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> R_co:
        """Register a node or replace its settings: see :class:`~schemas.commands.NodePut`."""
        fields = {"hypervisor": hypervisor, "inventory": inventory, "policy": policy, "labels": labels}
        return self._ask("node.put", node, fields, options)

    def node_remove(self, node: str, *, force: bool = False, **options: Unpack[Options]) -> R_co:
        """Remove a node: see :class:`~schemas.commands.NodeRemove`."""
        return self._ask("node.remove", node, {"force": force}, options)

    def claim(  # noqa: PLR0913 - an argument a field of the contract
        self,
        node: str,
        instance: UUID | None = None,
        *,
        project: str,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        disk: Disk | None = None,
        custom: Mapping[str, int] | None = None,
        topology: Topology | None = None,
        devices: Sequence[DeviceRequest] | None = None,
        traits: Traits | None = None,
        user: str | None = None,
        candidates: Sequence[str] | None = None,
        instances: Sequence[ClaimMember] | None = None,
        lease_seconds: int | None = None,
        revision: int | None = None,
        **options: Unpack[Options],
    ) -> R_co:
        """Claim room for a new instance, or for several all or none: see :class:`~schemas.commands.Claim`."""
        fields = {
            "instance": instance,
            "project": project,
            "user": user,
            "resources": _given(vcpus=vcpus, memory_mib=memory_mib, disk=disk, custom=custom),
            "topology": topology,
            "devices": devices,
            "traits": traits,
            "candidates": candidates,
            "instances": instances,
            "lease_seconds": lease_seconds,
            "revision": revision,
        }
        return self._ask("claim", node, fields, options)

    def resize(  # noqa: PLR0913 - an argument a field of the contract
        self,
        node: str,
        instance: UUID,
        *,
        vcpus: int,
        memory_mib: int,
        disk: Disk | None = None,
        custom: Mapping[str, int] | None = None,
        topology: Topology | None = None,
        devices: Sequence[DeviceRequest] | None = None,
        traits: Traits | None = None,
        destination: str | None = None,
        mode: Literal["prepare", "immediate"] = "prepare",
        lease_seconds: int | None = None,
        revision: int | None = None,
        **options: Unpack[Options],
    ) -> R_co:
        """Give an instance another size: see :class:`~schemas.commands.Resize`."""
        fields = {
            "instance": instance,
            "resources": _given(vcpus=vcpus, memory_mib=memory_mib, disk=disk, custom=custom),
            "topology": topology,
            "devices": devices,
            "traits": traits,
            "destination": destination,
            "mode": mode,
            "lease_seconds": lease_seconds,
            "revision": revision,
        }
        return self._ask("resize", node, fields, options)

    def migrate(  # noqa: PLR0913 - an argument a field of the contract
        self,
        node: str,
        instance: UUID,
        *,
        destination: str,
        reason: Literal["live", "cold", "evacuate"],
        topology: Topology | None = None,
        devices: Sequence[DeviceRequest] | None = None,
        traits: Traits | None = None,
        lease_seconds: int | None = None,
        revision: int | None = None,
        **options: Unpack[Options],
    ) -> R_co:
        """Move an instance at its size: see :class:`~schemas.commands.Migrate`."""
        fields = {
            "instance": instance,
            "destination": destination,
            "reason": reason,
            "topology": topology,
            "devices": devices,
            "traits": traits,
            "lease_seconds": lease_seconds,
            "revision": revision,
        }
        return self._ask("migrate", node, fields, options)

    def confirm(self, node: str, instance: UUID, *, revision: int | None = None, **options: Unpack[Options]) -> R_co:
        """End a move, or a claim's lease: see :class:`~schemas.commands.Confirm`."""
        return self._ask("confirm", node, {"instance": instance, "revision": revision}, options)

    def revert(self, node: str, instance: UUID, *, revision: int | None = None, **options: Unpack[Options]) -> R_co:
        """Undo a move: see :class:`~schemas.commands.Revert`."""
        return self._ask("revert", node, {"instance": instance, "revision": revision}, options)

    def abort(
        self,
        node: str,
        instance: UUID,
        *,
        reason: str | None = None,
        revision: int | None = None,
        **options: Unpack[Options],
    ) -> R_co:
        """Give up a build: see :class:`~schemas.commands.Abort`."""
        return self._ask("abort", node, {"instance": instance, "reason": reason, "revision": revision}, options)

    def update(
        self,
        node: str,
        instance: UUID,
        *,
        state: str | None = None,
        task: str | None = None,
        os_type: str | None = None,
        revision: int | None = None,
        **options: Unpack[Options],
    ) -> R_co:
        """Report an instance's state: see :class:`~schemas.commands.Update`."""
        fields = {"instance": instance, "state": state, "task": task, "os_type": os_type, "revision": revision}
        return self._ask("update", node, fields, options)

    def delete(
        self,
        node: str,
        instance: UUID,
        *,
        verify: bool | None = None,
        revision: int | None = None,
        **options: Unpack[Options],
    ) -> R_co:
        """Release all that an instance holds: see :class:`~schemas.commands.Delete`."""
        return self._ask("delete", node, {"instance": instance, "verify": verify, "revision": revision}, options)

    def audit(self, node: str, *, repair: bool = False, **options: Unpack[Options]) -> R_co:
        """Compare a node with its hypervisor: see :class:`~schemas.commands.Audit`."""
        return self._ask("audit", node, {"repair": repair}, options)


async def each(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    """The items of either kind of iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _given(**fields: object) -> dict[str, object] | None:
    """The fields that have a value; nothing where none has."""
    return {name: value for name, value in fields.items() if value is not None} or None
