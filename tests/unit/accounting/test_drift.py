"""Audits: what they tell, what they fix, and what they leave alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas import Audit, Claim, Inventory, Policy
from worker.accounting.decide import decide
from worker.accounting.post import post
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.nodes import compiled
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Facts, Node, Question, View

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE = UUID("0199c0de-0000-7000-8000-00000000000a")


@dataclass(frozen=True)
class Domain:
    uuid: UUID
    name: str = "guest"
    active: bool = True
    vcpus: int = 2
    memory_mib: int = 1024
    pinned_cpus: frozenset[int] = field(default_factory=frozenset)
    devices: tuple[str, ...] = ()
    fault: str | None = None


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
    seen = view(Domain(INSTANCE))
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
    seen = view(Domain(INSTANCE, vcpus=4, memory_mib=512, pinned_cpus=frozenset({5}), devices=("0000:01:00.0",)))
    claim(seen)
    found = audit(seen).drift or ()
    assert [(one["kind"], one["ledger"], one["hypervisor"]) for one in found] == [
        ("amount", 2, 4),
        ("amount", 1024, 512),
        ("devices", [], ["0000:01:00.0"]),
        ("pins", [], [5]),
    ]


def test_a_repaired_orphan_is_charged_once_and_given_up_when_its_domain_is_gone() -> None:
    seen = view(Domain(INSTANCE, vcpus=3, pinned_cpus=frozenset({4, 5})))
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
    seen = view(Domain(INSTANCE))
    audit(seen, repair=True)
    assert claim(seen, memory_mib=2048).status == "applied"
    assert seen.nodes["n"].occupancy.used == {"vcpus": 2, "memory_mib": 2048}
    assert [holding.role for holding in seen.instances[INSTANCE].holdings] == ["active"]


def test_an_orphan_that_uses_what_another_holds_is_charged_without_it() -> None:
    seen = view(Domain(INSTANCE, pinned_cpus=frozenset({4})), Domain(uuid4(), pinned_cpus=frozenset({4})))
    audit(seen, repair=True)
    assert seen.nodes["n"].occupancy.pinned == {4: min(seen.instances)}


def test_an_unreadable_domain_is_told_and_charged_to_nobody() -> None:
    seen = view(Domain(INSTANCE, fault="<memory>: not a number"))
    claim(seen)
    assert kinds(audit(seen, repair=True)) == ["unreadable"]
