"""What a batch changed of what instances hold: the keys that it gives back, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from uuid import UUID

from worker.accounting.state.instances import Holding, Instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Key: TypeAlias = tuple[object, object, object]
_Held: TypeAlias = tuple[Instance, Holding, int | None]


class Given(NamedTuple):
    """What a batch gives back, as keys."""

    allocations: list[Key]
    cpus: set[Key]
    devices: set[Key]


class Taken(NamedTuple):
    """What a batch takes: holdings with their holders and the ids of their nodes, and keys of what is held alone."""

    allocations: list[_Held]
    cpus: set[Key]
    devices: set[Key]


def difference(
    before: Mapping[UUID, Instance],
    changed: Iterable[Instance],
    ids_before: Mapping[str, int | None],
    ids_after: Mapping[str, int | None],
) -> tuple[Given, Taken]:
    """Keys of the allocations, CPUs and devices given back, and those taken, with what is held there.

    Nodes have their ids by name: one that was removed and put again has another one afterwards.
    """
    before_marks, after_marks = _Marks(), _Marks()
    given: list[Key] = []
    taken: list[_Held] = []
    for after in changed:
        was = before.get(after.id)
        if was is not None and was.holdings == after.holdings:
            continue
        for holding in was.holdings if was is not None else ():
            node_id = ids_before[holding.node]
            before_marks.add(node_id, holding, after.id)
            given.append((after.id, node_id, holding.role))
        for holding in after.holdings:
            node_id = ids_after[holding.node]
            after_marks.add(node_id, holding, after.id)
            taken.append((after, holding, node_id))
    return (
        Given(given, before_marks.cpus - after_marks.cpus, before_marks.devices - after_marks.devices),
        Taken(taken, after_marks.cpus - before_marks.cpus, after_marks.devices - before_marks.devices),
    )


class _Marks:
    """CPUs and devices that instances hold alone, as keys."""

    __slots__ = ("cpus", "devices")

    def __init__(self) -> None:
        self.cpus: set[Key] = set()
        self.devices: set[Key] = set()

    def add(self, node_id: int | None, holding: Holding, holder: UUID) -> None:
        placement = holding.placement
        if placement.pins:
            self.cpus.update((node_id, cpu, holder) for cpu in placement.pins)
        if placement.devices:
            self.devices.update((node_id, address, holder) for address in placement.devices)
