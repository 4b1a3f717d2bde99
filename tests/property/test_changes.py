"""What holds while an operator changes a node's policy under its guests, and they their rules."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commands import Shape
from schemas.cpuset import parse_cpu_set
from tests.property.drawing import changing_hosts, resized, small_requests
from tests.property.test_placement import MORE, compiled, shape
from tests.unit.accounting.builders import cells_of
from worker.accounting.host.compiled import Host
from worker.accounting.host.cpus import mask_of
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, Placement, beside, merged

Json = dict[str, Any]

STEPS = st.tuples(st.integers(0, 2), st.integers(0, 2), small_requests(), st.sampled_from([None, 0, 0, 1, 1, 2, -1]))
"""The node's state now, who claims or is resized, to what, and how many vCPUs more where only that changes.

0 stands for other rules and the same size.
"""


def policy_of(wish: Shape) -> Any:
    return wish.topology and wish.topology.thread_policy


def cache_of(wish: Shape) -> Any:
    return wish.topology and wish.topology.cache


def rules_of(wish: Shape) -> Any:
    return policy_of(wish), cache_of(wish)


def altered(request: Json, fresh: Json, more: int) -> Json:
    """The same under the rules of a fresh request, or with some vCPUs more in each cell."""
    resources, cells = request["resources"], request["topology"]["cells"]
    vcpus, memory_mib = max(1, resources["vcpus"] // cells + more), resources["memory_mib"] // cells
    return resized(request if more else {**fresh, "topology": {**fresh["topology"], "cells": cells}}, vcpus, memory_mib)


def asked_again(host: Host, occupancy: Occupancy, before: Placement, wish: Shape, held_by: Shape) -> Any:
    return place(
        host,
        occupancy.without([before]),
        wish,
        own=merged([before]),
        held=[before],
        thread_policy=policy_of(held_by),
        cache=cache_of(held_by),
    )


def check_threads(host: Host, wish: Shape, after: Placement, before: Placement | None, *, same: bool) -> None:
    """CPUs that are not merely kept follow the thread policy."""
    kept = before.pins if before is not None else frozenset[int]()
    for cell in cells_of(after):
        pins = mask_of(cell["pins"].values())
        known = next(one for one in (*host.cells, host.implicit) if one.id == cell["host_cell"])
        usable = known.shared | known.dedicated | mask_of(kept)
        used = [core & usable for core in known.siblings if core & pins]
        if policy_of(wish) == "require":
            singles = sum((core & pins).bit_count() == 1 for core in used)
            assert singles <= 1 or (same and set(cell["pins"].values()) <= kept)
        if policy_of(wish) == "isolate":
            assert all(core.bit_count() == 1 for core in used) or (same and set(cell["pins"].values()) <= kept)


def check_caches(host: Host, wish: Shape, after: Placement, before: Placement | None, *, same: bool) -> None:
    """CPUs that are not merely kept lie in as few caches as could hold them on empty cores of one thread or two."""
    if cache_of(wish) != "require":
        return
    kept = before.pins if before is not None else frozenset[int]()
    for cell in cells_of(after):
        pins = set(cell["pins"].values())
        if not pins or (same and pins <= kept):
            continue
        known = next(one for one in (*host.cells, host.implicit) if one.id == cell["host_cell"])
        usable, taken = known.dedicated | mask_of(kept), mask_of(pins)
        assert not taken & ~sum(known.caches)
        if policy_of(wish) is None:
            sizes = sorted(((mask & usable).bit_count() for mask in known.caches), reverse=True)
            fewest = next(count for count in range(1, len(sizes) + 1) if sum(sizes[:count]) >= len(pins))
            assert sum(1 for mask in known.caches if mask & taken) <= fewest


def is_backed(wish: Shape, placement: Placement) -> bool:
    return "pcpus" in placement.charge or bool(wish.topology and wish.topology.page_size)


def check_memory(
    host: Host, others: Occupancy, wish: Shape, after: Placement, before: Placement | None, *, licensed: bool
) -> None:
    """Memory of a guest's own is there, beside all that others have, unless it had that much of its own before."""
    if not is_backed(wish, after):
        return
    limits = {cell.memory_counter: cell.memory_mib for cell in host.cells if not cell.pages}
    limits |= {pages.counter: pages.total - pages.reserved for cell in host.cells for pages in cell.pages}
    had = before.charge if before is not None and licensed else {}
    for name, amount in after.charge.items():
        if name in limits and amount > had.get(name, 0):
            assert others.used.get(name, 0) + amount <= limits[name]


def check_shared(others: Occupancy, after: Placement) -> None:
    """What is pinned for others is shared with nobody, also where the policy of today shares it."""
    texts = [after.assignment["shared_cpus"], *(cell["shared_cpus"] for cell in cells_of(after))]
    assert all(parse_cpu_set(str(text)).isdisjoint(others.pinned) for text in texts if text)


@settings(MORE, max_examples=250)
@given(changing_hosts(), st.lists(STEPS, min_size=4, max_size=10))
def test_what_stays_stays_as_it_is_and_what_is_new_follows_the_rules_of_today(
    states: list[tuple[Json, Json]], steps: list[tuple[int, int, Json, int | None]]
) -> None:
    hosts = [compiled(*state) for state in states]
    occupancy, held, wished = Occupancy(), dict[UUID, Placement](), dict[UUID, Json]()
    for now, number, fresh, more in steps:
        host, holder = hosts[now], UUID(int=number)
        for other, placement in held.items():
            before = shape(wished[other])
            again = asked_again(host, occupancy, placement, before, before)
            assert (again.charge, again.pins, again.devices) == (placement.charge, placement.pins, placement.devices)
        old = held.get(holder)
        request = fresh if old is None or more is None else altered(wished[holder], fresh, more)
        wish, was = shape(request), shape(wished[holder]) if old is not None else None
        if old is None or was is None:
            result = place(host, occupancy, wish)
        else:
            result = asked_again(host, occupancy, old, wish, was)
        if not isinstance(result, Placement):
            assert all(reason.detail for reason in result)
            continue
        others = occupancy.without([old] if old is not None else [])
        check_threads(host, wish, result, old, same=was is not None and policy_of(was) == policy_of(wish))
        check_caches(host, wish, result, old, same=was is not None and rules_of(was) == rules_of(wish))
        licensed = old is not None and was is not None and is_backed(was, old)
        check_memory(host, others, wish, result, old, licensed=licensed)
        check_shared(others, result)
        occupancy, held[holder], wished[holder] = beside(others, holder, result), result, request
        assert len(occupancy.pinned) == sum(len(placement.pins) for placement in held.values())


@settings(MORE, max_examples=150)
@given(changing_hosts(), st.lists(small_requests(), min_size=2, max_size=2))
def test_what_is_overcommitted_is_no_licence_to_hold_as_much_alone(
    states: list[tuple[Json, Json]], rules: list[Json]
) -> None:
    inventory, policy = states[0]
    lax = {**policy, "shared_cpus": "0-11", "ratios": {"vcpus": "4.0", "memory": "2.0"}}
    lax.pop("dedicated_cpus", None)
    laxly, strictly = compiled(inventory, lax), compiled(states[1][0], states[1][1])
    request: Json = {"resources": {"vcpus": 2, "memory_mib": 2048}, "topology": {"cells": 1}, "devices": []}
    occupancy, held = Occupancy(), dict[UUID, Placement]()
    for number in range(2 * len(inventory["cells"])):
        if isinstance(result := place(laxly, occupancy, shape(request)), Placement):
            held[UUID(int=number)] = result
            occupancy = beside(occupancy, UUID(int=number), result)
    for holder, fresh in zip(held, rules * 2, strict=False):
        topology = {**fresh["topology"], "cells": 1}
        topology.pop("dedicated_vcpus", None)
        if topology["cpu_policy"] == "mixed":
            topology["dedicated_vcpus"] = "1"
        wish, before = shape({**request, "topology": topology}), held[holder]
        others = occupancy.without([before])
        result = asked_again(strictly, occupancy, before, wish, shape(request))
        if isinstance(result, Placement):
            check_memory(strictly, others, wish, result, before, licensed=False)
            occupancy = beside(others, holder, result)
