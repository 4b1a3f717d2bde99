"""Drift over time: what an audit found, held against what was known to differ before.

An audit tells what differs now. Whether that is new, still there or over follows
from what was known: a difference is the same one as long as it is of one kind
about one instance, whatever the values are by now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json, to_json

if TYPE_CHECKING:
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the ledger and a node's hypervisor.

    ``ledger`` and ``hypervisor`` are what each says, as plain JSON values.
    ``id`` is its number on record, ``None`` of one that is not on record yet.
    """

    node: str
    instance: UUID | None
    kind: str
    detail: str
    ledger: object = None
    hypervisor: object = None
    id: int | None = None


@dataclass(slots=True)
class DriftChange:
    """What began to differ, what still does, as it is now, and what does not any more."""

    begun: list[Difference] = field(default_factory=list)
    kept: list[Difference] = field(default_factory=list)
    ended: list[Difference] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.begun or self.kept or self.ended)


_Key = Callable[[Difference], object]
_LIKENESS: Final[Sequence[_Key]] = (
    lambda one: (one.instance, one.kind, to_json((one.ledger, one.hypervisor))),
    lambda one: (one.instance, one.kind, to_json(one.ledger)),
    lambda one: (one.instance, one.kind),
)
"""How alike two must be to be the same, the most alike first: an instance may differ in several amounts."""


def differences(node: str, drift: Iterable[Mapping[str, object]]) -> list[Difference]:
    """What an audit of a node found, as it is kept."""
    return [
        Difference(
            node=node,
            instance=one.get("instance"),  # type: ignore[arg-type] # as an audit writes it
            kind=str(one["kind"]),
            detail=str(one.get("detail", "")),
            ledger=_plain(one.get("ledger")),
            hypervisor=_plain(one.get("hypervisor")),
        )
        for one in drift
    ]


def changed(known: Iterable[Difference], found: Iterable[Difference]) -> DriftChange:
    """What changed on a node between what was known and what an audit found now."""
    change = DriftChange(begun=list(found), ended=list(known))
    for key in _LIKENESS:
        _pair(change, key)
    return change


def _pair(change: DriftChange, key: _Key) -> None:
    """Take what is alike out of both sides, in their order."""
    before: dict[object, list[Difference]] = defaultdict(list)
    for one in reversed(change.ended):
        before[key(one)].append(one)
    fresh: list[Difference] = []
    for one in change.begun:
        same = before[key(one)]
        if same:
            change.kept.append(replace(one, id=same.pop().id))
        else:
            fresh.append(one)
    left = {one.id for rest in before.values() for one in rest}
    change.begun, change.ended = fresh, [one for one in change.ended if one.id in left]


def _plain(value: object) -> object:
    """The value as it comes back from the database."""
    return None if value is None else from_json(to_json(value))
