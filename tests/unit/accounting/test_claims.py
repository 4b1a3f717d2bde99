from __future__ import annotations

import json

from tests.model.scene import Scene, asks, pinned, uuid
from tests.reference.room import Json

ONE, TWO, THREE = 1, 2, 3
ALONE: Json = {"topology": {"cpu_policy": "dedicated"}}
UNEVEN: Json = {
    "cpus": "0-5",
    "memory_mib": 16384,
    "cells": [{"id": 0, "cpus": "0-3", "memory_mib": 8192}, {"id": 1, "cpus": "4-5", "memory_mib": 8192}],
}
"""Cells with four and with two CPUs."""


def member(instance: int, node: str, vcpus: int = 1, **more: object) -> Json:
    return {"instance": uuid(instance), "node": node, **asks(vcpus), **more}


def test_several_instances_are_taken_all_or_none() -> None:
    scene = Scene()
    scene.nodes("a", "b", policy={"ratios": {"vcpus": "1.0"}})
    group = [member(ONE, "a", 3), member(TWO, "b", 3), member(THREE, "a", 2)]
    assert scene.refused("claim", "a", project="blue", instances=group) == {"insufficient"}
    assert (scene.used("a"), scene.used("b")) == ({}, {})
    group[2] = member(THREE, "a", 1)
    outcome = scene.applied("claim", "a", project="blue", instances=group)
    assert [given["instance"] for given in outcome["assignments"]] == [uuid(ONE), uuid(TWO), uuid(THREE)]
    assert (scene.used("a")["vcpus"], scene.used("b")["vcpus"]) == (4, 3)


def test_members_of_a_group_never_share_a_cpu() -> None:
    scene = Scene()
    scene.nodes("a", policy={"dedicated_cpus": "0-3"})
    alone = {"topology": {"cpu_policy": "dedicated"}}
    group = [member(number, "a", 2, **alone) for number in (ONE, TWO)]
    scene.applied("claim", "a", project="blue", instances=group)
    assert not scene.pins("a", ONE) & scene.pins("a", TWO)


def test_a_group_with_one_instance_that_is_there_already_is_refused_with_every_reason() -> None:
    scene = Scene()
    scene.nodes("a")
    scene.claim("a", ONE)
    scene.applied("delete", "a", instance=uuid(TWO))
    group = [member(ONE, "a"), member(TWO, "a"), member(THREE, "a")]
    assert scene.refused("claim", "a", project="blue", instances=group) == {"instance_exists", "superseded"}


def test_the_first_candidate_that_fits_is_taken_and_a_refusal_says_why_none_does() -> None:
    scene = Scene()
    scene.nodes("a", "b", "c", policy={"ratios": {"vcpus": "1.0"}})
    scene.claim("a", ONE, **asks(4))
    outcome = scene.claim("a", TWO, candidates=["b", "c"], **asks(4))
    assert outcome["node"] == "b"
    fields = {"instance": uuid(THREE), "project": "blue", "candidates": ["b", "nowhere"], **asks(4)}
    refused = scene.do("claim", "a", **fields)
    assert [(reason["node"], reason["code"]) for reason in refused["reasons"]] == [
        ("a", "insufficient"),
        ("b", "insufficient"),
        ("nowhere", "node_unknown"),
    ]


def test_a_candidate_that_does_not_answer_is_passed_over() -> None:
    scene = Scene()
    scene.hypervisor("a")
    scene.nodes("b")
    scene.world.silent.add("a")
    assert scene.claim("a", ONE, candidates=["b"])["node"] == "b"


def test_a_claim_that_may_go_elsewhere_neither_waits_for_a_node_nor_goes_ahead_of_those_who_do() -> None:
    scene = Scene()
    scene.hypervisor("a")
    scene.nodes("b")
    scene.world.silent.add("a")
    scene.send("claim", "a", instance=uuid(ONE), project="blue", **asks())
    assert scene.claim("a", TWO, candidates=["b"])["node"] == "b"
    scene.world.silent.clear()
    assert scene.claim("a", THREE, candidates=["b"])["node"] == "b"
    scene.probe("a")
    assert scene.claim("a", 4, candidates=["b"])["node"] == "a"


def test_an_instance_is_charged_once_however_often_it_is_claimed() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", ONE)
    for node in ("a", "b"):
        refused = scene.refused("claim", node, instance=uuid(ONE), project="blue", **asks())
        assert refused == {"instance_exists"}
    scene.path.publish_body(scene.path.sent[2])
    scene.work()
    assert (scene.used("a"), scene.used("b")) == ({"vcpus": 1, "memory_mib": 512}, {})


def test_a_worker_that_dies_around_its_commit_applies_a_command_once() -> None:
    scene = Scene()
    scene.nodes("a")
    claim = scene.send("claim", "a", instance=uuid(ONE), project="blue", **asks())
    scene.path.work(10, dies_in=0)
    assert scene.used("a") == {}
    scene.path.work(10, dies_after=0)
    first = scene.path.bench.outcomes[claim]
    scene.work()
    assert scene.used("a") == {"vcpus": 1, "memory_mib": 512}
    assert scene.path.bench.outcomes[claim] == first
    assert len(scene.ledger.entries) == 1


def test_an_aborted_build_gives_everything_back_counts_and_may_be_claimed_again() -> None:
    scene = Scene()
    scene.nodes("a", policy={"dedicated_cpus": "0-3"})
    for failed in (1, 2):
        scene.claim("a", ONE, **pinned(4))
        scene.applied("abort", "a", instance=uuid(ONE), reason="the image could not be fetched")
        assert (scene.used("a"), scene.pins("a", ONE)) == ({}, set())
        assert scene.ledger.nodes["a"].failed_builds == failed
    scene.claim("a", ONE, **pinned(1))
    scene.applied("update", "a", instance=uuid(ONE), state="active")
    assert scene.ledger.nodes["a"].failed_builds == 0


def test_a_dry_run_answers_and_changes_nothing() -> None:
    scene = Scene()
    scene.hypervisor("a")
    outcome = scene.claim("a", ONE, dry_run=True)
    assert outcome["dry_run"]
    assert scene.used("a") == {}
    scene.world.silent.add("a")
    fields = {"instance": uuid(ONE), "project": "blue", "dry_run": True, **asks()}
    assert scene.refused("claim", "a", **fields) == {"hypervisor_unreachable"}
    assert scene.ledger.waiting == []


def test_a_dry_run_previews_the_very_assignment() -> None:
    scene = Scene()
    scene.nodes("a", policy={"dedicated_cpus": "0-3"})
    scene.claim("a", ONE, **pinned(1))
    previewed = scene.claim("a", TWO, dry_run=True, **pinned(2))
    assert scene.claim("a", TWO, **pinned(2))["assignment"] == previewed["assignment"]


def test_an_id_that_stands_for_another_command_changes_nothing() -> None:
    scene = Scene()
    scene.nodes("a")
    claim = scene.send("claim", "a", instance=uuid(ONE), project="blue", **asks())
    scene.work()
    other = json.loads(scene.path.sent[-1]) | {"resources": {"vcpus": 2, "memory_mib": 512}}
    scene.path.publish_body(json.dumps(other).encode())
    scene.work()
    assert scene.used("a")["vcpus"] == 1
    assert scene.status(claim) == "applied"
    assert scene.path.queues["a"] == []


def test_a_replay_out_of_order_is_decided_by_what_happened_meanwhile() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", ONE, revision=1)
    scene.applied("migrate", "a", instance=uuid(ONE), destination="b", reason="live", revision=2)
    scene.applied("confirm", "b", instance=uuid(ONE), revision=3)
    scene.applied("delete", "b", instance=uuid(ONE), revision=4)
    for body in reversed(scene.path.sent.copy()):
        scene.path.publish_body(body)
    scene.work()
    assert (scene.used("a"), scene.used("b")) == ({}, {})


def test_a_refusal_of_a_group_names_the_member_and_what_the_node_has_before_it() -> None:
    scene = Scene()
    scene.nodes("a", policy={"ratios": {"vcpus": "1.0"}})
    group = [member(ONE, "a", 3), member(TWO, "a", 2)]
    (why,) = scene.do("claim", "a", project="blue", instances=group)["reasons"]
    assert (why["instance"], why["used"], why["capacity"], why["short_by"]) == (uuid(TWO), 0, 4, 1)
    assert "3 asked for by others of this claim, 4 of 4 free: 1 too few" in why["detail"]
    scene.claim("a", ONE)
    (why,) = scene.do("claim", "a", project="blue", instances=group)["reasons"]
    assert (why["code"], why["instance"]) == ("instance_exists", uuid(ONE))


def test_members_are_placed_together_in_whatever_order_they_are_given() -> None:
    group = [member(ONE, "a", 2, **ALONE), member(TWO, "a", 4, **ALONE)]
    for members in (group, group[::-1]):
        scene = Scene()
        scene.applied(
            "node.put", "a", inventory=UNEVEN, policy={"dedicated_cpus": "0-5", "reserved": {"memory_mib": 0}}
        )
        scene.applied("claim", "a", project="blue", instances=members)
        assert (scene.pins("a", ONE), scene.pins("a", TWO)) == ({4, 5}, {0, 1, 2, 3})


def test_members_that_take_more_work_to_place_together_than_one_command_may_are_refused_as_too_complex() -> None:
    scene = Scene()
    cells = [{"id": n, "cpus": f"{4 * n}-{4 * n + 3}", "memory_mib": 65536 + n} for n in range(24)]
    inventory = {"cpus": "0-95", "memory_mib": 2**21, "cells": cells}
    scene.applied(
        "node.put", "a", inventory=inventory, policy={"dedicated_cpus": "0-95", "reserved": {"memory_mib": 0}}
    )
    odd = [member(number, "a", 3 if number % 8 else 4, **ALONE) for number in range(1, 30)]
    reasons = scene.do("claim", "a", project="blue", instances=odd)["reasons"]
    assert {why["code"] for why in reasons} == {"too_complex"}
    assert all(why["instance"] and why["node"] == "a" for why in reasons)


def test_each_refused_member_lacks_what_is_missing_once_those_before_it_have_what_they_lack() -> None:
    scene = Scene()
    scene.nodes("a", policy={"ratios": {"vcpus": "1.0"}})
    group = [member(ONE, "a", 3), member(TWO, "a", 2), member(THREE, "a", 4)]
    short = [
        (why["instance"], why["short_by"]) for why in scene.do("claim", "a", project="b", instances=group)["reasons"]
    ]
    assert short == [(uuid(TWO), 1), (uuid(THREE), 4)]
