"""What holds for every host, every history and every request.

Hosts, histories and requests are drawn at random; the promises are those of the
ledger: nothing is given twice, nothing beyond what there is, everything comes
back, and a refusal tells the truth about what is missing.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.commands import Shape
from schemas.cpuset import parse_cpu_set
from schemas.inventory import Inventory
from schemas.policy import Policy
from tests.property.drawing import inventories, policies, requests, resized
from tests.unit.accounting.builders import cells_of
from worker.accounting.host.compiled import Host, build_host
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, Placement, beside, merged

STEPS = st.tuples(st.integers(0, 3), requests(), st.integers(0, 6))
"""Who claims or is resized, to what, and how many vCPUs for each cell where only the size changes, if not 0."""

MORE = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def compiled(inventory: dict[str, Any], policy: dict[str, Any]) -> Host:
    return build_host(
        Inventory.model_validate_json(json.dumps(inventory)),
        Policy.model_validate_json(json.dumps(policy)),
        observed=False,
    )


def shape(request: dict[str, Any]) -> Shape:
    return Shape.model_validate(request)


def taken(occupancy: Occupancy) -> tuple[dict[str, int], dict[int, UUID], dict[str, UUID]]:
    return {name: amount for name, amount in occupancy.used.items() if amount}, occupancy.pinned, occupancy.held


def check(host: Host, inventory: dict[str, Any], held: dict[UUID, Placement], occupancy: Occupancy) -> None:
    """Everything that must hold for a state reached by growth alone."""
    pins = [cpu for placement in held.values() for cpu in placement.pins]
    assert len(pins) == len(set(pins)) == len(occupancy.pinned)
    addresses = [address for placement in held.values() for address in placement.devices]
    assert len(addresses) == len(set(addresses)) == len(occupancy.held)
    for name, known in host.capacity.items():
        assert occupancy.used.get(name, 0) <= known.capacity
    check_stores(inventory, occupancy)
    for cell in host.cells:
        assert not set(occupancy.pinned) & parse_cpu_set(cell.shared_cpus)
    check_devices(inventory["devices"], set(addresses), occupancy)


def check_stores(inventory: dict[str, Any], occupancy: Occupancy) -> None:
    """Huge pages are not used up as other memory, nor other memory as huge pages."""
    huge = [
        (f"cell/{cell['id']}/pages/{pages['size_kib']}", pages["total"], pages["size_kib"])
        for cell in inventory["cells"]
        for pages in sorted(cell["pages"], key=lambda one: one["size_kib"])[1:]
    ]
    assert all(occupancy.used.get(name, 0) <= total for name, total, _ in huge)
    small_mib = inventory["memory_mib"] - sum(total * size for _, total, size in huge) // 1024
    assert occupancy.used.get("memory_mib", 0) <= small_mib * 1.5


def check_devices(found: list[dict[str, Any]], held: set[str], occupancy: Occupancy) -> None:
    for device in found:
        address = device["address"]
        assert not (address in held and device.get("parent") in held)
        in_use = {name: occupancy.used.get(f"mdev/{address}/{name}", 0) for name in device.get("mdev_types", {})}
        assert sum(1 for amount in in_use.values() if amount) <= (address not in held)
        assert all(amount <= device["mdev_types"][name] for name, amount in in_use.items())


def check_assignment(wish: Shape, placement: Placement, *, divided: bool) -> None:
    """The assignment and the charge say the same."""
    cells: Any = placement.assignment["cells"]
    assigned: Any = placement.assignment["devices"]
    pins = [cpu for cell in cells for cpu in cell["pins"].values()]
    isolated = wish.topology is not None and wish.topology.emulator_threads == "isolate"
    emulator = [cpu for cell in cells for cpu in parse_cpu_set(cell["emulator_cpus"]) if isolated]
    assert sorted([*pins, *emulator]) == sorted(placement.pins)
    assert placement.charge.get("pcpus", 0) == len(placement.pins)
    assert placement.charge.get("vcpus", 0) + len(pins) == wish.resources.vcpus
    if cells:
        assert sum(cell["memory_mib"] for cell in cells) == wish.resources.memory_mib
        assert len({cell["host_cell"] for cell in cells}) == len(cells)
    assert (placement.assignment["shared_cpus"] is not None) == divided
    for request in wish.devices:
        assert sum(device["name"] == request.name for device in assigned) == request.count
    mediated = sum(amount for name, amount in placement.charge.items() if name.startswith("mdev/"))
    assert len(placement.devices) + mediated == len(assigned)


def pins_by_cell(placement: Placement) -> dict[tuple[int, int, str], int]:
    """The host CPU of each vCPU, by its guest cell, its host cell and its number."""
    return {
        (cell["guest_cell"], cell["host_cell"], vcpu): cpu
        for cell in cells_of(placement)
        for vcpu, cpu in cell["pins"].items()
    }


def check_kept(wish: Shape, before: Placement, after: Placement) -> None:
    """Where a guest's cell stays, its vCPUs stay on their CPUs, unless the thread policy speaks against it."""
    if wish.topology is None or wish.topology.thread_policy in {"require", "isolate"}:
        return
    was, now = pins_by_cell(before), pins_by_cell(after)
    assert all(was[place] == now[place] for place in was.keys() & now.keys())


@MORE
@given(
    inventories(roomy=True),
    policies(),
    st.lists(STEPS, min_size=1, max_size=10),
    st.randoms(use_true_random=False),
)
def test_nothing_is_given_twice_or_beyond_what_there_is_and_everything_comes_back(
    inventory: dict[str, Any], policy: dict[str, Any], steps: list[tuple[int, dict[str, Any], int]], rng: random.Random
) -> None:
    host = compiled(inventory, policy)
    occupancy, held, wished = Occupancy(), dict[UUID, Placement](), dict[UUID, dict[str, Any]]()
    for number, fresh, vcpus in steps:
        holder = UUID(int=number)
        own = [held[holder]] if holder in held else []
        request = resized(wished[holder], vcpus, 256 * vcpus) if own and vcpus else fresh
        wish = shape(request)
        others = occupancy.without(own)
        result = place(host, others, wish, own=merged(own), held=own)
        if isinstance(result, Placement):
            occupancy = beside(others, holder, result)
            assert taken(occupancy.without([result])) == taken(others)
            held[holder], wished[holder] = result, request
            divided = bool(policy.keys() & {"shared_cpus", "dedicated_cpus"})
            check_assignment(wish, result, divided=divided)
            check(host, inventory, held, occupancy)
            if own:
                check_kept(wish, own[0], result)
    for holder in rng.sample(sorted(held), len(held)):
        occupancy = occupancy.without([held.pop(holder)])
    assert taken(occupancy) == ({}, {}, {})


@MORE
@given(inventories(), policies(), requests(), requests(), st.randoms(use_true_random=False))
def test_the_order_of_lists_and_dicts_makes_no_difference(
    inventory: dict[str, Any], policy: dict[str, Any], first: dict[str, Any], second: dict[str, Any], rng: random.Random
) -> None:
    host, occupancy = compiled(inventory, policy), Occupancy()
    if isinstance(result := place(host, occupancy, shape(first)), Placement):
        occupancy = beside(occupancy, UUID(int=1), result)
    turned = dict(rng.sample(sorted(inventory.items()), len(inventory)))
    turned["devices"] = rng.sample(inventory["devices"], len(inventory["devices"]))
    turned["cells"] = [
        {**cell, "pages": cell["pages"][::-1]} for cell in rng.sample(inventory["cells"], len(inventory["cells"]))
    ]
    shuffled = Occupancy(
        dict(rng.sample(sorted(occupancy.used.items()), len(occupancy.used))),
        dict(rng.sample(sorted(occupancy.pinned.items()), len(occupancy.pinned))),
        dict(rng.sample(sorted(occupancy.held.items()), len(occupancy.held))),
    )
    assert place(host, occupancy, shape(second)) == place(compiled(turned, policy), shuffled, shape(second))


@MORE
@given(inventories(), policies(), requests(), st.integers(0, 3))
def test_what_an_instance_has_it_may_keep_whatever_the_node_became(
    inventory: dict[str, Any], policy: dict[str, Any], wish: dict[str, Any], shrink: int
) -> None:
    host = compiled(inventory, policy)
    before = place(host, Occupancy(), shape(wish))
    if not isinstance(before, Placement):
        return
    occupancy = beside(Occupancy(), UUID(int=1), before)
    assert place(host, occupancy.without([before]), shape(wish), own=merged([before]), held=[before]) == before
    crowded = Occupancy({name: amount + 10**6 for name, amount in occupancy.used.items() if "mdev" not in name})
    squeezed = replace(
        host,
        ceiling=dict.fromkeys(host.ceiling, 0),
        capacity={name: replace(known, capacity=0) for name, known in host.capacity.items()},
    )
    wish["resources"]["custom"] = {}
    wish["resources"]["disk"] = {"swap_mib": 0}
    if shrink and wish["topology"] is None:
        wish["resources"]["vcpus"] = 1
        wish["resources"]["memory_mib"] = 256
    assert isinstance(place(squeezed, crowded, shape(wish), own=merged([before]), held=[before]), Placement)


class Remedy:
    """Gives a node what the reasons of a refusal say is missing."""

    def __init__(self, inventory: dict[str, Any], policy: dict[str, Any]) -> None:
        self.inventory = inventory
        self.policy = policy
        self.cells = {cell["id"]: cell for cell in inventory["cells"]}

    def all_of(self, reasons: list[Any]) -> bool:
        """False if a reason names something that cannot be added to."""
        return False not in [self.one(reason) for reason in reasons]

    def one(self, reason: Any) -> bool:
        if reason.code == "insufficient":
            if reason.resource in {"vcpus", "pcpus"}:
                self.add_cpus({"vcpus": "shared_cpus", "pcpus": "dedicated_cpus"}[reason.resource], reason.short_by)
            elif reason.resource == "memory_mib":
                self.add_memory(reason.short_by)
            else:
                self.inventory["custom"][reason.resource] += reason.short_by
            return True
        if reason.code == "no_device_fit":
            return add_devices(self.inventory, reason)
        if reason.code != "no_numa_fit" or reason.resource != "cells" or not reason.cells or not self.cells:
            return False
        lacks = [(self.cells[entry["cell"]], lack) for entry in reason.cells for lack in entry.get("lacks", [])]
        return False not in [self.give(cell, lack) for cell, lack in lacks]

    def give(self, cell: dict[str, Any], lack: dict[str, Any]) -> bool:
        if "short_by" not in lack:
            return False
        if lack["resource"] == "pages":
            next(p for p in cell["pages"] if p["size_kib"] == lack["page_size_kib"])["total"] += lack["short_by"]
            more_mib = -(-lack["short_by"] * lack["page_size_kib"] // 1024)
            cell["memory_mib"] += more_mib
            self.add_memory(more_mib)
        elif lack["resource"] == "memory_mib":
            cell["memory_mib"] += lack["short_by"]
            self.add_memory(lack["short_by"])
        elif lack["resource"] in {"vcpus", "shared_cpus", "dedicated_cpus"}:
            kind = "dedicated_cpus" if lack["resource"] == "dedicated_cpus" else "shared_cpus"
            cell["cpus"] = ",".join(filter(None, [cell["cpus"], self.add_cpus(kind, lack["short_by"])]))
        else:
            return False
        return True

    def add_memory(self, mib: int) -> None:
        self.inventory["memory_mib"] += mib

    def add_cpus(self, kind: str, count: int) -> str:
        first = max(parse_cpu_set(self.inventory["cpus"]) | {999}) + 1
        added = f"{first}-{first + count - 1}"
        self.inventory["cpus"] += f",{added}"
        if kind == "dedicated_cpus" and not self.policy.keys() & {"shared_cpus", "dedicated_cpus"}:
            self.policy["shared_cpus"] = "0-999"
        if kind == "dedicated_cpus" or self.policy.keys() & {"shared_cpus", "dedicated_cpus"}:
            self.policy[kind] = ",".join(filter(None, [self.policy.get(kind), added]))
        return added


def add_devices(inventory: dict[str, Any], reason: Any) -> bool:
    """More devices like one that matches; False where none does."""
    known = {device["address"]: device for device in inventory["devices"]}
    if not reason.devices:
        return False
    model = known[reason.devices[0]["address"]]
    for number in range(reason.short_by):
        fresh = {
            **model,
            "cell": reason.cells[0]["cell"] if reason.cells else None,
            "address": f"ffff:0{number}:{reason.resource[1:]}.0",
            "type": model.get("type", "pci"),
            "parent": None,
        }
        inventory["devices"].append(fresh)
    return True


@pytest.mark.parametrize("kind", ["cells", "devices", "devices near cells"])
@MORE
@given(data=st.data())
def test_a_refusal_names_what_if_it_were_there_would_let_the_request_through(kind: str, data: st.DataObject) -> None:
    inventory, policy, wish = data.draw(inventories()), data.draw(policies()), data.draw(requests())
    if kind == "cells":
        wish["devices"] = []
    elif kind == "devices":
        wish["topology"] = None
    else:
        wish["devices"] = wish["devices"] or [{"name": "d0", "match": [{}], "affinity": "required"}]
    occupancy, host = Occupancy(), compiled(inventory, policy)
    for number, other in enumerate(data.draw(st.lists(requests(), max_size=3))):
        if isinstance(result := place(host, occupancy, shape(other)), Placement):
            occupancy = beside(occupancy, UUID(int=number), result)
    reasons = place(host, occupancy, shape(wish))
    if isinstance(reasons, Placement) or not Remedy(inventory, policy).all_of(reasons):
        return
    if kind == "devices near cells" and {reason.code for reason in reasons} != {"no_device_fit"}:
        return
    after = place(compiled(inventory, policy), occupancy, shape(wish))
    assert isinstance(after, Placement), [reason.detail for reason in after]
