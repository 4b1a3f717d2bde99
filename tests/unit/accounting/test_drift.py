"""Audits: what they tell, what they fix, and what they leave alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas import Abort, Audit, Claim, Inventory, Policy
from worker.accounting.decide import decide
from worker.accounting.post import post
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.nodes import compiled
from worker.accounting.state.domains import Domain, DomainMemory
from worker.accounting.state.instances import Holding, Instance
from worker.accounting.state.occupancy import Occupancy, Placement
from worker.accounting.state.view import Facts, Node, Question, View

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE = UUID("0199c0de-0000-7000-8000-00000000000a")


def running(uuid: UUID = INSTANCE, *, pins: Any = (), vcpus: int = 2, memory_mib: int = 1024, **more: Any) -> Domain:
    """A domain whose vCPUs are confined to sets of CPUs, one after the other."""
    confined = {vcpu: frozenset(cpus) for vcpu, cpus in enumerate(pins)}
    memory = more.pop("memory", (DomainMemory(0, memory_mib),))
    return Domain(uuid, "guest", True, vcpus, memory_mib, confined, memory=memory, **more)


def view(*domains: Domain, answers: bool = True, hypervisor: str | None = "test:///default") -> View:
    inventory = Inventory(cpus="0-7", memory_mib=8192, disk_gib=10)
    node = Node("n", Policy(dedicated_cpus="4-7", shared_cpus="0-3"), Occupancy(), generation=1, hypervisor=hypervisor)
    node.inventory, node.observed_at = inventory, NOW
    node.host = compiled(node)
    return View({"n": node}, facts=Facts(listings={"n": domains if answers else None}))


def audit(seen: View, *, repair: bool = False) -> Decision:
    command = Audit(version=1, id=uuid4(), kind="audit", node="n", issued_at=NOW, repair=repair)
    decision = decide(seen, command, NOW)
    assert isinstance(decision, Decision)
    post(seen, command, decision)
    return decision


def claim(seen: View, **asked: Any) -> Decision:
    document = {"vcpus": 2, "memory_mib": 1024, **asked}
    command = Claim.model_validate(
        {"version": 1, "id": uuid4(), "kind": "claim", "node": "n", "issued_at": NOW, "instance": INSTANCE}
        | {"project": "p", "resources": document}
    )
    decision = decide(seen, command, NOW)
    assert isinstance(decision, Decision)
    post(seen, command, decision)
    return decision


def kinds(decision: Decision) -> list[object]:
    return [found["kind"] for found in decision.drift or ()]


def test_a_node_that_agrees_with_its_hypervisor_has_no_drift() -> None:
    seen = view(running())
    claim(seen)
    assert audit(seen).drift == ()


def test_an_audit_asks_for_every_domain_of_its_node_first() -> None:
    seen = replace(view(), facts=Facts())
    command = Audit(version=1, id=uuid4(), kind="audit", node="n", issued_at=NOW)
    assert decide(seen, command, NOW) == Question(listings=frozenset({"n"}))


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (view(answers=False), "hypervisor_unreachable"),
        (view(hypervisor=None), "invalid_request"),
        (View(), "node_unknown"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(seen: View, code: str) -> None:
    assert [reason.code for reason in audit(seen).reasons] == [code]


def test_a_missing_domain_is_told_and_its_claim_is_kept() -> None:
    seen = view()
    claim(seen)
    assert kinds(audit(seen, repair=True)) == ["ghost"]
    assert seen.nodes["n"].occupancy.used["vcpus"] == 2


def test_other_amounts_pins_and_devices_are_told_with_both_sides() -> None:
    seen = view(running(pins=[{5}], vcpus=4, memory_mib=512, devices=("0000:01:00.0",)))
    claim(seen)
    found = audit(seen).drift or ()
    assert [(one["kind"], one["ledger"], one["hypervisor"]) for one in found] == [
        ("amount", 2, 4),
        ("amount", 1024, 512),
        ("pins", {"0": "0-3"}, {"0": "5"}),
        ("devices", [], ["0000:01:00.0"]),
    ]


def test_a_repaired_orphan_is_charged_once_and_given_up_when_its_domain_is_gone() -> None:
    seen = view(running(pins=[{4}, {5}], vcpus=3))
    assert kinds(audit(seen)) == ["orphan"]
    assert seen.nodes["n"].occupancy == Occupancy()
    for _ in range(2):
        assert kinds(audit(seen, repair=True)) == ["orphan"]
        assert seen.nodes["n"].occupancy.used == {"vcpus": 1, "pcpus": 2, "memory_mib": 1024}
        assert seen.nodes["n"].occupancy.pinned == dict.fromkeys((4, 5), INSTANCE)
    seen.facts = Facts(listings={"n": ()})
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy == Occupancy()


def test_a_claim_takes_over_what_an_audit_charged_for_its_domain() -> None:
    seen = view(running())
    audit(seen, repair=True)
    assert claim(seen, memory_mib=2048).status == "applied"
    assert seen.nodes["n"].occupancy.used == {"vcpus": 2, "memory_mib": 2048}
    assert [holding.role for holding in seen.instances[INSTANCE].holdings] == ["active"]


def test_an_orphan_that_uses_what_another_holds_is_charged_without_it() -> None:
    seen = view(running(pins=[{4}]), running(uuid4(), pins=[{4}]))
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy.pinned == {4: min(seen.instances)}


def test_an_unreadable_domain_is_told_and_charged_to_nobody() -> None:
    seen = view(running(fault="<memory>: not a number"))
    claim(seen)
    assert kinds(audit(seen, repair=True)) == ["unreadable"]


PAGES = [{"size_kib": 4, "total": 1048576}, {"size_kib": 2048, "total": 512}]
CELLS = [
    {"id": 0, "cpus": "0-7", "memory_mib": 8192, "pages": PAGES},
    {"id": 1, "cpus": "8-15", "memory_mib": 8192, "pages": PAGES},
]


def celled(*domains: Domain, devices: Any = ()) -> View:
    """A node of two cells with one shared and seven dedicated CPUs each, and with devices."""
    found = [{"vendor": "10de", "product": "1db6", **device} for device in devices]
    host = {"cpus": "0-15", "memory_mib": 16384, "disk_gib": 10, "cells": CELLS, "devices": found}
    settings = {"shared_cpus": "0,8", "dedicated_cpus": "1-7,9-15", "ratios": {"vcpus": "4.0"}}
    inventory = Inventory.model_validate_json(json.dumps(host))
    policy = Policy.model_validate_json(json.dumps({**settings, "devices": [{"vendor": "10de"}]}))
    node = Node("n", policy, Occupancy(), generation=1, hypervisor="test:///default")
    node.inventory, node.observed_at = inventory, NOW
    node.host = compiled(node)
    return View({"n": node}, facts=Facts(listings={"n": domains}))


@pytest.mark.parametrize(
    ("uses", "charge"),
    [
        ({"emulator_cpus": frozenset({3})}, {"vcpus": 2, "pcpus": 1}),
        ({"pins": [{2}, {2}]}, {"pcpus": 1}),
        ({"pins": [{2, 3}, {2, 3}]}, {"pcpus": 2}),
        ({"pins": [{0}, {0}]}, {"vcpus": 2, "cell/0/vcpus": 2}),
        ({"pins": [set(range(16))]}, {"vcpus": 2}),
        ({"io_cpus": frozenset({0, 9})}, {"vcpus": 2, "pcpus": 1}),
        ({"mediated": (("0000:02:00.0", "t1"),)}, {"vcpus": 2, "mdev/0000:02:00.0/t1": 1}),
    ],
)
def test_an_orphan_is_charged_the_cpus_and_devices_that_it_uses(uses: Any, charge: dict[str, int]) -> None:
    seen = celled(running(**uses))
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy.used == {"memory_mib": 1024, **charge}


SMALL = {"cell/1/memory_mib": 1024, "cell/1/pages/4": 262144}


@pytest.mark.parametrize(
    ("memory", "charge"),
    [
        (DomainMemory(0, 1024, 2048, frozenset({1})), {"cell/1/pages/2048": 512}),
        (DomainMemory(0, 1024, 0, frozenset({1})), {"cell/1/pages/2048": 512}),
        (DomainMemory(0, 1536, 2048), {"cell/0/pages/2048": 512, "cell/1/pages/2048": 256}),
        (DomainMemory(0, 1024, None, frozenset({1})), {"memory_mib": 1024, **SMALL}),
        (DomainMemory(0, 1024, 4), {"memory_mib": 1024}),
    ],
)  # fmt: skip
def test_an_orphan_is_charged_its_pages_on_their_cells(memory: DomainMemory, charge: dict[str, int]) -> None:
    seen = celled(running(memory_mib=memory.memory_mib, memory=(memory,)))
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy.used == {"vcpus": 2, **charge}


def test_an_orphan_that_uses_more_by_now_is_charged_more_and_what_it_uses_no_more_is_free() -> None:
    seen = celled(running(pins=[{4}]))
    audit(seen, repair=True)
    seen.facts = Facts(listings={"n": (running(pins=[{5}, {6}], devices=("0000:01:00.0",)),)})
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy.pinned == dict.fromkeys((5, 6), INSTANCE)
    assert seen.nodes["n"].occupancy.held == {"0000:01:00.0": INSTANCE}
    assert len(seen.instances[INSTANCE].holdings) == 1
    seen.facts = Facts(listings={"n": (running(fault="<memory>: not a number"),)})
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy.pinned == dict.fromkeys((5, 6), INSTANCE), "unknown is not less"


def elsewhere(**more: Any) -> View:
    """A view in which the instance's domain runs on ``n``, and the ledger knows it otherwise."""
    seen = celled(running())
    other = Node("b", Policy(), Occupancy({"vcpus": 2, "memory_mib": 1024}), generation=1)
    seen.nodes["b"] = other
    seen.instances[INSTANCE] = Instance(INSTANCE, 3, "p", **more)
    return seen


CLAIM = Holding(
    "b", "active", '{"resources":{"vcpus":2,"memory_mib":1024}}', Placement({"vcpus": 2, "memory_mib": 1024}), NOW
)


@pytest.mark.parametrize(
    ("known", "where", "detail"),
    [
        ({"holdings": (CLAIM,)}, "b", "its instance is claimed on b"),
        ({"deleted_at": NOW}, "deleted at 2026-01-01T00:00:00+00:00", "was deleted at"),
        ({"state": "shelved_offloaded"}, None, "nobody claimed it"),
    ],
)
def test_a_domain_that_is_known_is_told_with_where_it_belongs_and_charged_while_it_runs(
    known: Any, where: str | None, detail: str
) -> None:
    seen = elsewhere(**known)
    for _ in range(2):
        (found,) = audit(seen, repair=True).drift or ()
        assert (found["kind"], found.get("where")) == ("orphan", where)
        assert detail in str(found["detail"])
        assert seen.nodes["n"].occupancy.used == {"vcpus": 2, "memory_mib": 1024}
    assert seen.nodes["b"].occupancy.used == {"vcpus": 2, "memory_mib": 1024}
    seen.facts = Facts(listings={"n": ()})
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy.used == {}
    assert seen.instances[INSTANCE].holdings == known.get("holdings", ())


def test_what_a_stray_domain_is_charged_stays_while_its_claim_elsewhere_changes() -> None:
    seen = elsewhere(holdings=(CLAIM,))
    audit(seen, repair=True)
    command = Abort(version=1, id=uuid4(), kind="abort", node="n", issued_at=NOW, instance=INSTANCE)
    refused = decide(seen, command, NOW)
    assert isinstance(refused, Decision)
    assert [why.code for why in refused.reasons] == ["instance_unknown"], "it has its claim elsewhere"
    command = command.model_copy(update={"node": "b"})
    decision = decide(seen, command, NOW)
    assert isinstance(decision, Decision)
    post(seen, command, decision)
    assert seen.nodes["b"].occupancy.used == {}
    assert seen.nodes["n"].occupancy.used == {"vcpus": 2, "memory_mib": 1024}


def shape_of_one_cell(**topology: Any) -> dict[str, Any]:
    return {"cpu_policy": "dedicated", "cells": 1, **topology}


def given(seen: View, *, devices: Any = (), **topology: Any) -> Any:
    document = {"version": 1, "id": uuid4(), "kind": "claim", "node": "n", "issued_at": NOW, "instance": INSTANCE}
    more = {"topology": topology or None, "devices": list(devices)}
    vcpus = 2 if topology.get("cpu_policy") == "dedicated" or not topology else 1
    asked = {"project": "p", "resources": {"vcpus": vcpus, "memory_mib": 1024}, **more}
    command = Claim.model_validate(document | asked)
    decision = decide(seen, command, NOW)
    assert isinstance(decision, Decision)
    assert decision.status == "applied", decision.reasons
    post(seen, command, decision)
    return decision.assignment


def test_a_shared_guest_on_the_one_shared_cpu_of_its_cell_is_no_drift() -> None:
    seen = celled()
    given(seen, cells=1)
    seen.facts.listings["n"] = (running(pins=[{0}], vcpus=1),)
    assert audit(seen).drift == ()


@pytest.mark.parametrize(
    ("topology", "uses", "kind"),
    [
        ({"cpu_policy": "dedicated"}, {}, "pins"),
        ({"cpu_policy": "dedicated"}, {"pins": [{2}, {1}]}, "pins"),
        ({"cells": 1}, {"pins": [{5}]}, "pins"),
        ({"cells": 1}, {"pins": [{0}], "emulator_cpus": frozenset({9})}, "pins"),
        ({"cells": 1}, {"pins": [{8}]}, "cells"),
        ({"cells": 1, "page_size": 2048}, {"pins": [{0}]}, "pages"),
        ({"cells": 1}, {"pins": [{0}], "memory": (DomainMemory(0, 1024, 2048, frozenset({0})),)}, "pages"),
        ({"cells": 1}, {"pins": [{0}], "memory": (DomainMemory(0, 1024, None, frozenset({1})),)}, "cells"),
        ({"cells": 1}, {"pins": [{0}], "mediated": (("0000:02:00.0", "t1"),)}, "devices"),
        ({"cells": 1}, {"pins": [{0}], "unknown": ("vDPA device /dev/vhost-vdpa-0",)}, "devices"),
    ],
)
def test_what_is_used_otherwise_than_given_is_told(topology: Any, uses: Any, kind: str) -> None:
    seen = celled()
    given(seen, **topology)
    seen.facts.listings["n"] = (running(vcpus=2 if "cpu_policy" in topology else 1, **uses),)
    assert kind in kinds(audit(seen))


def test_a_mediated_device_that_is_claimed_and_not_there_is_told_unless_the_host_cannot_tell_which_is() -> None:
    seen = celled(devices=[{"address": "0000:02:00.0", "mdev_types": {"t1": 1}}])
    given(seen, devices=[{"name": "gpu", "match": [{}], "type": "mdev"}])
    seen.facts.listings["n"] = (running(),)
    (found,) = audit(seen).drift or ()
    assert (found["kind"], found["ledger"], found["hypervisor"]) == ("devices", ["0000:02:00.0 t1"], [])
    seen.facts.listings["n"] = (running(unknown=("mediated device x",)),)
    assert audit(seen).drift == ()


def test_a_host_that_lost_what_is_held_is_told_and_what_is_held_keeps_counting() -> None:
    seen = celled(devices=[{"address": "0000:01:00.0"}])
    wanted = {"name": "gpu", "match": [{"product": "1db6"}], "affinity": "preferred"}
    pins = given(seen, devices=[wanted], **shape_of_one_cell(page_size=2048))["cells"][0]["pins"]
    before = dict(seen.nodes["n"].occupancy.used)
    memory = (DomainMemory(0, 1024, 2048, frozenset({0})),)
    seen.facts.listings["n"] = (
        running(pins=[{cpu} for cpu in pins.values()], memory=memory, devices=("0000:01:00.0",)),
    )
    assert audit(seen).drift == ()
    node = seen.nodes["n"]
    assert node.inventory is not None
    other = node.inventory.devices[0].model_copy(update={"product": "0002"})
    for changed, told in (
        ({"devices": []}, "device 0000:01:00.0 is gone"),
        ({"devices": [other]}, "the device at 0000:01:00.0 is another"),
        ({"cells": node.inventory.cells[1:]}, "the host has no cell 0"),
        ({"cpus": "4-15"}, "CPUs 1-2 are not online"),
    ):
        seen.nodes["n"] = replace(node, inventory=node.inventory.model_copy(update=changed))
        seen.nodes["n"].host = compiled(seen.nodes["n"])
        found = [one for one in audit(seen).drift or () if one["kind"] == "host"]
        assert told in str(found[0]["detail"])
        assert seen.nodes["n"].occupancy.used == before


def test_an_isolated_guest_whose_cpus_have_siblings_now_is_told() -> None:
    seen = celled()
    pins = given(seen, **shape_of_one_cell(thread_policy="isolate"))["cells"][0]["pins"]
    seen.facts.listings["n"] = (running(pins=[{cpu} for cpu in pins.values()]),)
    assert audit(seen).drift == ()
    node = seen.nodes["n"]
    assert node.inventory is not None
    cells = [node.inventory.cells[0].model_copy(update={"siblings": ["1,2"]}), node.inventory.cells[1]]
    node.inventory = node.inventory.model_copy(update={"cells": cells})
    node.host = compiled(node)
    (found,) = audit(seen).drift or ()
    assert (found["kind"], "thread_policy isolate" in str(found["detail"])) == ("host", True)


def test_an_audit_is_refused_at_once_while_others_wait_for_the_hypervisor() -> None:
    seen = view(running())
    seen.nodes["n"].parked = 2
    assert [why.code for why in audit(seen).reasons] == ["hypervisor_unreachable"]


def test_what_a_host_has_is_asked_again_where_it_is_too_old_to_compare_with() -> None:
    seen = replace(view(), facts=Facts())
    seen.nodes["n"].observed_at = None
    command = Audit(version=1, id=uuid4(), kind="audit", node="n", issued_at=NOW)
    assert decide(seen, command, NOW) == Question(inventories=frozenset({"n"}), listings=frozenset({"n"}))
