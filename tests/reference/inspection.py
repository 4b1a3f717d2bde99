"""The ledger's whole state, held against the reference model and against its own sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.reference.ledger import Guest, Reference
from tests.reference.room import Amounts, Json

Waiting = tuple[str, str, bool]
"""The id of a parked command, its node, and whether it holds up those behind it."""

_SAID = ("project", "revision", "state", "task", "os_type", "move", "deleted")


@dataclass
class Snapshot:
    """The ledger's whole state on plain values; ``entries`` from the first to the last."""

    nodes: dict[str, Json] = field(default_factory=dict)
    instances: dict[str, Json] = field(default_factory=dict)
    entries: list[Json] = field(default_factory=list)
    parked: dict[str, bool] = field(default_factory=dict)


def differences(reference: Reference, found: Snapshot, parked: Iterable[Waiting] = ()) -> Iterator[str]:
    """Say what is not as it should be."""
    waiting = list(parked)
    yield from _of("the nodes", found.nodes.keys(), reference.places.keys())
    yield from _of("the instances", found.instances.keys(), reference.guests.keys())
    yield from _of("what is parked", found.parked, {id: blocking for id, _, blocking in waiting})
    for name in found.nodes.keys() & reference.places.keys():
        blocked = sum(blocking for _, node, blocking in waiting if node == name)
        for key, wanted in {**_node(reference, name), "parked": blocked}.items():
            yield from _of(f"{key} of {name}", found.nodes[name][key], wanted)
        odd = {counter: n for counter, n in found.nodes[name]["used"].items() if type(n) is not int or n <= 0}
        yield from _of(f"amounts of {name} that are no whole numbers above 0", odd, {})
    for name in found.instances.keys() & reference.guests.keys():
        yield from _instance(name, found.instances[name], reference.guests[name])
    yield from _rebuilt(found)


def _of(what: str, found: object, wanted: object) -> Iterator[str]:
    if found != wanted:
        yield f"{what}: {found} instead of {wanted}"


def _node(reference: Reference, name: str) -> Json:
    held = reference.holders(name)
    return {
        "used": {counter: amount for counter, amount in reference.used(name).items() if amount},
        "failed_builds": reference.places[name].failed_builds,
        "pinned": {cpu: id for id, sides in held.items() for side in sides for cpu in side.pins},
        "held": {address: id for id, sides in held.items() for side in sides for address in side.devices},
    }


def _instance(name: str, found: Json, guest: Guest) -> Iterator[str]:
    for key in _SAID:
        yield from _of(f"{key} of {name}", found[key], getattr(guest, key))
    yield from _of(f"whether {name} is stranded", found["stranded"] is not None, guest.stranded is not None)
    holds = {
        (held.node, held.role): {
            "charge": held.charge,
            "pins": held.pins,
            "devices": held.devices,
            "lease": held.lease,
        }
        for held in guest.holds
    }
    yield from _of(f"what {name} holds", found["holds"], holds)


def _rebuilt(found: Snapshot) -> Iterator[str]:
    """Rebuild every node from the entries alone."""
    used: dict[str, Amounts] = {name: {} for name in found.nodes}
    last: dict[tuple[str, str], Json] = {}
    for entry in found.entries:
        amounts = used.setdefault(entry["node"], {})
        for counter, delta, after in zip(entry["counters"], entry["deltas"], entry["used_after"], strict=True):
            amounts[counter] = amounts.get(counter, 0) + delta
            if not amounts[counter] == after >= 0:
                yield f"{counter} of {entry['node']} after {entry}: its entries come to {amounts[counter]}"
        last[entry["node"], entry["instance"]] = entry
    for name, amounts in used.items():
        stored = found.nodes[name]["used"] if name in found.nodes else {}
        yield from _of(f"the entries of {name}", {counter: n for counter, n in amounts.items() if n}, stored)
    for what, key in (("pins", "pinned"), ("devices", "held")):
        rebuilt: dict[str, dict[Any, str]] = {name: {} for name in used}
        for (node, instance), entry in last.items():
            rebuilt[node] |= dict.fromkeys(entry[what] or (), instance)
        for name, stored in found.nodes.items():
            yield from _of(f"{what} in the entries of {name}", rebuilt[name], stored[key])
