"""Whatever is asked, the answer stays below a bound, keeps every code, and says what it leaves out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from schemas import Command, Outcome, parse_command
from tests.published import published
from worker.accounting import work
from worker.accounting.decide import decide
from worker.accounting.reasons.refusals import Collected, refusal
from worker.accounting.rules import claims
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.nodes import apply_settings
from worker.accounting.state.domains import Domain
from worker.accounting.state.view import Facts, View
from worker.accounting.work import Work
from worker.engine.outcomes import render
from worker.engine.ports import ReadSet

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BOUNDLESS = 10**9
MOST = 1024 * 1024
LONG = "N" * 240


@pytest.fixture(autouse=True)
def without_a_bound_on_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer's size is bounded by itself, also where the work of finding it is not."""
    monkeypatch.setattr(claims, "Work", partial(Work, BOUNDLESS))
    monkeypatch.setattr(work, "REASON_STEPS", BOUNDLESS)


def command(**fields: Any) -> Command:
    common = {"version": 1, "id": str(UUID(int=1)), "issued_at": "2026-11-22T00:00:00Z"}
    return parse_command(json.dumps({**common, **fields}).encode())


def view(*names: str, policy: dict[str, Any] | None = None, **inventory: Any) -> View:
    seen = View()
    for name in names:
        pushed = {"cpus": "0-7", "memory_mib": 16384, **inventory}
        put = command(kind="node.put", node=name, inventory=pushed, policy=policy or {})
        apply_settings(seen, put)  # type: ignore[arg-type] # the kind says which
    return seen


def answered(seen: View, asked: Command) -> tuple[Decision, Outcome]:
    decision = decide(seen, asked, NOW)
    assert isinstance(decision, Decision)
    text = render(ReadSet(seen, {}, NOW), asked, decision, decision.status).text
    assert len(text) < MOST
    published(text)
    return decision, Outcome.model_validate_json(text)


def claim(**fields: Any) -> Command:
    return command(kind="claim", instance=str(UUID(int=2)), project="acme", **fields)


def test_a_claim_of_many_unknown_resources_on_many_nodes_is_refused_with_all_codes_and_counts() -> None:
    names = [f"cn-{number}" for number in range(131)]
    custom = {f"CUSTOM_{LONG}_{number}": 1 for number in range(256)}
    traits = {"required": [f"T{LONG[:60]}{number}" for number in range(200)]}
    asked = claim(
        node=names[0], candidates=names[1:], traits=traits, resources={"vcpus": 64, "memory_mib": 1, "custom": custom}
    )
    decision, outcome = answered(view(*names), asked)
    assert {reason.code for reason in outcome.reasons} == {"unknown_resource", "insufficient", "missing_trait"}
    assert {reason.node for reason in outcome.reasons} == set(names)
    of_first = [reason.detail for reason in outcome.reasons if reason.node == names[0]]
    listed = sum("the node has no" in detail for detail in of_first)
    assert any(detail.startswith(f"{256 - listed} more reasons") for detail in of_first)
    assert len(decision.reasons) < 5000


def test_a_refusal_of_one_node_lists_every_reason() -> None:
    custom = {f"CUSTOM_{LONG}_{number}": 1 for number in range(256)}
    _, outcome = answered(view("cn-1"), claim(node="cn-1", resources={"vcpus": 1, "memory_mib": 1, "custom": custom}))
    assert {reason.resource for reason in outcome.reasons} == set(custom)


def test_a_claim_for_many_instances_is_refused_in_a_bounded_size() -> None:
    custom = {f"CUSTOM_{number}": 1 for number in range(100)}
    members = [
        {
            "instance": str(UUID(int=10 + n)),
            "node": f"cn-{n}",
            "resources": {"vcpus": 1, "memory_mib": 1, "custom": custom},
        }
        for n in range(100)
    ]
    asked = command(kind="claim", node="cn-0", project="acme", instances=members)
    _, outcome = answered(view(*(f"cn-{n}" for n in range(100))), asked)
    assert {reason.code for reason in outcome.reasons} == {"unknown_resource"}


def test_a_refusal_that_tells_of_many_cells_and_devices_is_bounded() -> None:
    cells = [{"id": n, "cpus": f"{n}", "memory_mib": 64, "siblings": [f"{n}"]} for n in range(500)]
    devices = [
        {"address": f"0000:{n:04x}:00.0-{'a' * 100}", "vendor": "10de", "product": "1db6", "cell": 0}
        for n in range(600)
    ]
    names = [f"cn-{number}" for number in range(6)]
    seen = view(*names, policy={"dedicated_cpus": "0-499"}, cpus="0-499", cells=cells, devices=devices)
    wanted = [{"name": f"{LONG}{n}", "count": 256, "match": [{"vendor": "10de"}]} for n in range(8)]
    asked = claim(
        node=names[0],
        candidates=names[1:],
        resources={"vcpus": 4, "memory_mib": 4096},
        topology={"cpu_policy": "dedicated", "cells": 2},
        devices=wanted,
    )
    _, outcome = answered(seen, asked)
    assert {reason.code for reason in outcome.reasons} >= {"no_numa_fit", "no_device_fit"}
    told = next(reason for reason in outcome.reasons if reason.code == "no_numa_fit")
    assert "and 436 more cells" in told.detail or told.cells is None


def test_an_audit_of_ten_thousand_domains_lists_the_first_and_counts_the_rest_of_each_kind() -> None:
    seen = view("cn-1")
    seen.nodes["cn-1"].hypervisor = "test:///default"
    domains = [Domain(UUID(int=100 + number), name=f"{LONG}{number}") for number in range(10_000)]
    seen.facts = Facts(listings={"cn-1": domains})
    decision, outcome = answered(seen, command(kind="audit", node="cn-1"))
    assert outcome.drift is not None
    listed = [found for found in outcome.drift if "instance" in found]
    (counted,) = [found for found in outcome.drift if "instance" not in found]
    assert counted["kind"] == "orphan"
    assert str(counted["detail"]).startswith(f"{10_000 - len(listed)} more")
    assert len(decision.drift or ()) == 10_000


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_claim_whose_assignment_could_not_be_answered_is_refused_and_says_how_large(*, dry_run: bool) -> None:
    device = {
        "address": "0000:3b:00.0",
        "vendor": "10de",
        "product": "1db6",
        "type": "pci",
        "mdev_types": {"m": 60_000},
    }
    requests = [{"name": f"{LONG}{n}", "count": 256, "type": "mdev", "match": [{"mdev_type": "m"}]} for n in range(100)]
    amounts = {"vcpus": 1, "memory_mib": 1024}
    seen = view("cn-1", devices=[device])
    decision, _ = answered(seen, claim(node="cn-1", dry_run=dry_run, resources=amounts, devices=requests))
    assert [reason.code for reason in decision.reasons] == ["invalid_request"]
    assert "bytes" in decision.reasons[0].detail
    fewer, _ = answered(seen, claim(node="cn-1", dry_run=dry_run, resources=amounts, devices=requests[:1]))
    assert fewer.status == "applied"


def test_what_is_only_counted_keeps_its_code() -> None:
    reasons = Collected()
    for number in range(2000):
        reasons.add([refusal("insufficient", LONG * 2, node=f"cn-{number}"), refusal("no_move", LONG * 2)])
    told = reasons.all()
    assert [reason.code for reason in told[-2:]] == ["insufficient", "no_move"]
    assert sum(map(len, (reason.detail for reason in told))) < MOST


def test_the_usage_of_a_node_with_as_many_resources_as_a_command_can_push_is_bounded() -> None:
    custom = {f"CUSTOM_{LONG}_{number}": 2**40 for number in range(256)}
    seen = view("cn-1", custom=custom)
    _, outcome = answered(seen, claim(node="cn-1", resources={"vcpus": 1, "memory_mib": 1024}))
    assert outcome.usage.keys() > custom.keys()
