"""A guest that is started with exactly what it was given shows no drift; one that uses anything else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deploy.examples.domain import domain_xml
from schemas import Audit
from schemas.commands import Shape
from schemas.cpuset import parse_cpu_set
from schemas.inventory import Inventory
from schemas.policy import Policy
from tests.property.drawing import inventories, policies, requests
from worker.accounting.decide import decide
from worker.accounting.placing.place import place
from worker.accounting.post import post
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.nodes import compiled
from worker.accounting.state.domains import Domain
from worker.accounting.state.instances import Holding, Instance, request_of
from worker.accounting.state.occupancy import Occupancy, Placement, beside
from worker.accounting.state.view import Facts, Node, View
from worker.hypervisor.devices import NodeDevice
from worker.hypervisor.domains import parse_domain, with_devices

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE = UUID("0199c0de-0000-7000-8000-00000000000a")
OTHER = UUID("0199c0de-0000-7000-8000-00000000000b")
MORE = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def hosts_and_guests(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A host, some virtual functions of which are vDPA devices, its policy and a request."""
    inventory, policy, request = draw(inventories(roomy=True)), draw(policies()), draw(requests())
    for device in inventory["devices"]:
        if device.get("type") == "vf" and draw(st.booleans()):
            device["type"] = "vdpa"
    for want in request["devices"]:
        if want["type"] == "vf" and draw(st.booleans()):
            want["type"] = "vdpa"
    return inventory, policy, request


@dataclass
class Scene:
    """A node on which one guest is claimed, and the domain with which it is started."""

    node: Node
    shape: Shape
    placement: Placement
    nvme: frozenset[str] = frozenset()

    @property
    def given(self) -> Any:
        return self.placement.assignment

    def mediated(self) -> list[UUID]:
        return [uuid5(INSTANCE, str(place)) for place, one in enumerate(self.given["devices"]) if one["type"] == "mdev"]

    def xml(self) -> str:
        paths = {one["address"]: f"/dev/vhost-vdpa-{one['address']}" for one in self.given["devices"]}
        asked = self.shape.resources
        more: Any = {"mediated": self.mediated(), "vdpa_paths": paths, "nvme": self.nvme}
        return domain_xml(INSTANCE, asked.vcpus, asked.memory_mib, self.given, **more)

    def node_devices(self) -> list[NodeDevice]:
        uuids = iter(self.mediated())
        inventory = self.node.inventory
        found = [
            NodeDevice(d.address, None, "pci", address=d.address) for d in (inventory.devices if inventory else ())
        ]
        for one in self.given["devices"]:
            if one["type"] == "mdev":
                uuid = next(uuids)
                found.append(NodeDevice(str(uuid), one["parent"], "mdev", mdev_type=one["mdev_type"], mdev_uuid=uuid))
            if one["type"] == "vdpa":
                path = f"/dev/vhost-vdpa-{one['address']}"
                found.append(NodeDevice(path, one["address"], "vdpa", chardev=path))
        return found

    def read(self, text: str) -> Domain:
        (domain,) = with_devices([parse_domain(text, active=True)], self.node_devices())
        return domain

    def view(self, *domains: Domain) -> View:
        held = Holding("n", "active", request_of(self.shape), self.placement, NOW)
        node = replace(self.node, occupancy=beside(self.node.occupancy, INSTANCE, self.placement))
        instances = {INSTANCE: Instance(INSTANCE, 1, "p", holdings=(held,))}
        return View({"n": node}, instances, Facts(listings={"n": domains}))


def scene(inventory: dict[str, Any], policy: dict[str, Any], request: dict[str, Any]) -> Scene | None:
    """A node with the guest on it; ``None`` where it has no room."""
    node = Node(
        "n",
        Policy.model_validate_json(json.dumps(policy)),
        Occupancy(),
        generation=1,
        id=1,
        hypervisor="test:///default",
    )
    node.inventory, node.observed_at = Inventory.model_validate_json(json.dumps(inventory)), NOW
    allowed = [{"address": device["address"]} for device in inventory["devices"]]
    node.policy = Policy.model_validate_json(json.dumps({**policy, "devices": allowed}))
    node.host = compiled(node)
    assert node.host is not None
    shape = Shape.model_validate(request)
    placement = place(node.host, node.occupancy, shape)
    return Scene(node, shape, placement) if isinstance(placement, Placement) else None


def audit(view: View, *, repair: bool = False) -> list[Any]:
    command = Audit(version=1, id=INSTANCE, kind="audit", node="n", issued_at=NOW, repair=repair)
    decision = decide(view, command, NOW)
    assert isinstance(decision, Decision), decision
    assert decision.status == "applied", decision.reasons
    post(view, command, decision)
    return list(decision.drift or ())


@MORE
@given(drawn=hosts_and_guests(), disks=st.booleans())
def test_a_guest_that_uses_what_it_was_given_shows_no_drift(drawn: Any, *, disks: bool) -> None:
    made = scene(*drawn)
    if made is None:
        return
    made.nvme = frozenset(one["address"] for one in made.given["devices"] if disks)
    assert audit(made.view(made.read(made.xml()))) == []


@MORE
@given(hosts_and_guests())
def test_of_a_stranger_nothing_is_given_to_another(drawn: Any) -> None:
    """A domain that nobody claimed is charged at least what it was charged as a claimed guest."""
    made = scene(*drawn)
    if made is None:
        return
    seen = made.view(made.read(made.xml()))
    seen.instances.clear()
    seen.nodes["n"].occupancy = Occupancy()
    for _ in range(2):
        (found,) = audit(seen, repair=True)
        assert found["kind"] == "orphan"
        occupancy = seen.nodes["n"].occupancy
        assert occupancy.pinned.keys() >= made.placement.pins
        assert occupancy.held.keys() == set(made.placement.devices)
        apart = {"disk_mib", "CUSTOM_A"}
        for name, amount in made.placement.charge.items():
            if name not in apart:
                assert occupancy.used.get(name, 0) >= amount, name
    generation = seen.nodes["n"].generation
    audit(seen, repair=True)
    assert seen.nodes["n"].generation == generation, "what does not change is not written again"


EVERYTHING: dict[str, Any] = {
    "cpus": "0-15",
    "memory_mib": 16384,
    "cells": [
        {
            "id": cell * 2,
            "cpus": f"{cell * 8}-{cell * 8 + 7}",
            "siblings": [f"{cell * 8 + core},{cell * 8 + core + 4}" for core in range(4)],
            "memory_mib": 8192,
            "pages": [{"size_kib": 4, "total": 1048576}, {"size_kib": 2048, "total": 2048}],
        }
        for cell in range(2)
    ],
    "devices": [
        {"address": "0000:01:00.0", "vendor": "10de", "product": "0001", "type": "pci", "cell": 0},
        {"address": "0000:02:00.0", "vendor": "8086", "product": "0002", "type": "pf", "cell": 0},
        *(
            {"address": f"0000:02:00.{number}", "vendor": "8086", "product": "0003", "parent": "0000:02:00.0"}
            | {"type": "vf" if number < 3 else "vdpa"}
            for number in range(1, 5)
        ),
        {"address": "0000:03:00.0", "vendor": "10de", "product": "0004", "mdev_types": {"t1": 2}, "cell": 2},
    ],
}
DIVIDED = {"shared_cpus": "0-3,8-11", "dedicated_cpus": "4-7,12-15", "reserved": {"memory_mib": 0}}


@st.composite
def guests_of_everything(draw: st.DrawFn) -> Scene:
    """A guest of any policy, in pages of any size, with a device of any kind, on a host that has all of it."""
    policy, cells = draw(st.sampled_from(["shared", "dedicated", "mixed"])), draw(st.integers(1, 2))
    topology: dict[str, Any] = {"cpu_policy": policy, "cells": 1 if policy == "mixed" else cells}
    topology["page_size"] = draw(st.sampled_from([None, "small", "large", 2048]))
    if policy == "mixed":
        topology["dedicated_vcpus"] = "1-3"
    if policy != "shared":
        topology["emulator_threads"] = (
            draw(st.sampled_from([None, "share", "isolate"])) if policy == "dedicated" else None
        )
    kinds = draw(st.lists(st.sampled_from(["pci", "vf", "vdpa", "mdev"]), min_size=1, unique=True))
    wants = [{"name": kind, "type": kind, "match": [{}], "affinity": "preferred"} for kind in kinds]
    request = {"resources": {"vcpus": 4, "memory_mib": 1024}, "topology": topology, "devices": wants}
    made = scene(EVERYTHING, DIVIDED, request)
    assume(made is not None)
    assert made is not None
    return made


@MORE
@given(guests_of_everything())
def test_a_guest_with_devices_of_every_kind_shows_no_drift(made: Scene) -> None:
    assert audit(made.view(made.read(made.xml()))) == []


def _drop(tree: ET.Element, path: str) -> bool:
    parents = {child: parent for parent in tree.iter() for child in parent}
    found = tree.find(path)
    if found is not None:
        parents[found].remove(found)
    return found is not None


def _unpinned(tree: ET.Element, made: Scene) -> bool:
    return bool(made.placement.pins) and _drop(tree, f"cputune/vcpupin[@vcpu='{_dedicated(made)}']")


def _dedicated(made: Scene) -> str:
    return next((vcpu for cell in made.given["cells"] for vcpu in cell["pins"]), "none")


def _astray(tree: ET.Element, made: Scene) -> bool:
    """A thread of a shared guest, confined to CPUs that it was not given."""
    shared = [vcpu for cell in made.given["cells"] for vcpu in parse_cpu_set(cell["shared_vcpus"])]
    inventory, host = made.node.inventory, made.node.host
    assert inventory is not None
    assert host is not None
    others = sorted(parse_cpu_set(inventory.cpus) - host.shared - made.placement.pins)
    pin = tree.find(f"cputune/vcpupin[@vcpu='{shared[0]}']") if shared else None
    if pin is None or not others:
        return False
    pin.set("cpuset", str(others[0]))
    return True


def _other_pages(tree: ET.Element, _made: Scene) -> bool:
    page = tree.find("memoryBacking/hugepages/page")
    if page is None:
        return False
    page.set("size", "4" if page.get("size") != "4" else "2048")
    return True


def _other_cell(tree: ET.Element, made: Scene) -> bool:
    node = tree.find("numatune/memnode")
    if node is None or made.node.host is None or not made.node.host.cells:
        return False
    node.set("nodeset", "2" if node.get("nodeset") == "0" else "0")
    return True


def _more_memory(tree: ET.Element, _made: Scene) -> bool:
    memory, cell = tree.find("memory"), tree.find("cpu/numa/cell")
    assert memory is not None
    assert cell is not None
    memory.text = str(int(memory.text or 0) + 1024)
    cell.set("memory", str(int(cell.get("memory", "0")) + 1024))
    return True


def _without_device(kind: str) -> Callable[[ET.Element, Scene], bool]:
    return lambda tree, _made: _drop(tree, kind)


def _floating_emulator(tree: ET.Element, made: Scene) -> bool:
    """An emulator that is not kept on the CPUs it has for itself."""
    alone = any(parse_cpu_set(cell["emulator_cpus"]) & made.placement.pins for cell in made.given["cells"])
    return alone and _drop(tree, "cputune/emulatorpin")


MUTATIONS: dict[str, tuple[str, Callable[[ET.Element, Scene], bool]]] = {
    "a dedicated vCPU is not pinned": ("pins", _unpinned),
    "a shared vCPU is confined elsewhere": ("pins", _astray),
    "an emulator is not kept on its CPUs": ("pins", _floating_emulator),
    "pages of another size": ("pages", _other_pages),
    "memory on another cell": ("cells", _other_cell),
    "other memory": ("amount", _more_memory),
    "a device passed through is missing": ("devices", _without_device("devices/hostdev[@type='pci']")),
    "a mediated device is missing": ("devices", _without_device("devices/hostdev[@type='mdev']")),
    "a virtual function is missing": ("devices", _without_device("devices/interface[@type='hostdev']")),
    "a vDPA device is missing": ("devices", _without_device("devices/interface[@type='vdpa']")),
}


@pytest.mark.parametrize("name", MUTATIONS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=guests_of_everything())
def test_what_is_used_otherwise_than_given_is_told_as_what_it_is(name: str, made: Scene) -> None:
    kind, mutate = MUTATIONS[name]
    tree = ET.fromstring(made.xml())
    assume(mutate(tree, made))
    found = audit(made.view(made.read(ET.tostring(tree, encoding="unicode"))))
    assert kind in [one["kind"] for one in found]
    assert {one["instance"] for one in found} == {INSTANCE}
