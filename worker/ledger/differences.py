"""What a batch gives back and what it takes, of allocations, CPUs and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from worker.accounting.state.instances import Holding, Instance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from worker.accounting.state.view import View

_Key: TypeAlias = tuple[object, object, object]
_Held: TypeAlias = tuple[Instance, Holding, int | None]


class Given(NamedTuple):
    """What a batch gives back, as keys."""

    allocations: list[_Key]
    cpus: set[_Key]
    devices: set[_Key]


class Taken(NamedTuple):
    """What a batch takes: holdings with their holders and the ids of their nodes, and keys of what is held alone."""

    allocations: list[_Held]
    cpus: set[_Key]
    devices: set[_Key]


def difference(
    earlier: Mapping[UUID, Instance], ids: Mapping[str, int | None], view: View, changed: Mapping[UUID, Instance]
) -> tuple[Given, Taken]:
    """Keys of the allocations, CPUs and devices given back, and those taken, with what is held there.

    ``earlier`` is each instance as it was read, ``ids`` those of the nodes then.
    """
    before_alone, after_alone = _Alone(), _Alone()
    given: list[_Key] = []
    taken: list[_Held] = []
    for after in changed.values():
        before = earlier.get(after.id)
        if before is not None and before.holdings == after.holdings:
            continue
        for holding in before.holdings if before is not None else ():
            node_id = ids[holding.node]
            before_alone.add(node_id, holding, after.id)
            given.append((after.id, node_id, holding.role))
        for holding in after.holdings:
            node_id = view.nodes[holding.node].id
            after_alone.add(node_id, holding, after.id)
            taken.append((after, holding, node_id))
    return (
        Given(given, before_alone.cpus - after_alone.cpus, before_alone.devices - after_alone.devices),
        Taken(taken, after_alone.cpus - before_alone.cpus, after_alone.devices - before_alone.devices),
    )


class _Alone:
    """CPUs and devices that instances hold alone, as keys."""

    __slots__ = ("cpus", "devices")

    def __init__(self) -> None:
        self.cpus: set[_Key] = set()
        self.devices: set[_Key] = set()

    def add(self, node_id: int | None, holding: Holding, holder: UUID) -> None:
        placement = holding.placement
        if placement.pins:
            self.cpus.update((node_id, cpu, holder) for cpu in placement.pins)
        if placement.devices:
            self.devices.update((node_id, address, holder) for address in placement.devices)
