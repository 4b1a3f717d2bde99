from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from schemas import Policy
from tests.model.scene import FRESH, HOST, URI, Scene, asks, pinned, uuid
from tests.reference.room import Json

ONE, TWO = 1, 2
MOVED = "qemu:///system"


def test_new_settings_of_a_node_in_use_lose_and_invent_nothing() -> None:
    scene = Scene()
    scene.nodes("n", policy={"dedicated_cpus": "2-3", "overhead": {"memory_mib": 8}})
    scene.claim("n", ONE, **pinned(2, 512))
    held = scene.used("n"), scene.pins("n", ONE)
    for policy in (
        {"dedicated_cpus": "0-1", "reserved": {"memory_mib": 8704}, "ratios": {"memory": "0.5"}},
        {"overhead": {"memory_mib": 100}, "enabled": False, "devices": []},
    ):
        scene.nodes("n", policy=policy)
        assert (scene.used("n"), scene.pins("n", ONE)) == held
    scene.applied("delete", "n", instance=uuid(ONE))
    assert scene.used("n") == {}


def test_a_policy_gives_a_node_custom_resources_beside_what_its_hypervisor_tells() -> None:
    scene = Scene()
    licence = {"vcpus": 1, "memory_mib": 512, "custom": {"CUSTOM_LICENSE": 2}}
    scene.hypervisor("n", policy={**FRESH, "custom": {"CUSTOM_LICENSE": 3}})
    scene.claim("n", ONE, resources=licence)
    second = {"instance": uuid(TWO), "project": "blue", "resources": licence}
    assert scene.refused("claim", "n", **second) == {"insufficient"}
    scene.hypervisor("n", policy={**FRESH, "custom": {"CUSTOM_LICENSE": 4}})
    scene.applied("claim", "n", **second)
    less = scene.applied("node.put", "n", hypervisor=URI, policy={**FRESH, "custom": {"CUSTOM_LICENSE": 1}})
    assert [(one["code"], one["detail"]) for one in less["warnings"]] == [
        ("used_above_capacity", "4 CUSTOM_LICENSE are used and 1 may be")
    ]
    scene.hypervisor("n")
    assert scene.refused("claim", "n", **{**second, "instance": uuid(3)}) == {"unknown_resource"}


def test_a_custom_resource_of_both_a_pushed_inventory_and_the_policy_is_refused_and_each_is_named() -> None:
    scene, there = Scene(), {"CUSTOM_A": 1, "CUSTOM_B": 1, "CUSTOM_C": 1}
    policy = {"custom": {"CUSTOM_B": 1, "CUSTOM_C": 2, "CUSTOM_D": 3}}
    outcome = scene.do("node.put", "n", inventory={**HOST, "custom": there}, policy=policy)
    told = [(why["code"], why["resource"]) for why in outcome["reasons"]]
    assert told == [("invalid_request", "CUSTOM_B"), ("invalid_request", "CUSTOM_C")]
    assert "n" not in scene.ledger.nodes
    scene.applied("node.put", "n", inventory={**HOST, "custom": {"CUSTOM_A": 1}}, policy=policy)
    scene.claim("n", ONE, resources={"vcpus": 1, "memory_mib": 512, "custom": {"CUSTOM_A": 1, "CUSTOM_D": 3}})


def test_below_its_use_a_node_lets_instances_shrink_and_go_and_nothing_grow() -> None:
    scene = Scene()
    scene.nodes("n", policy={"dedicated_cpus": "0-3"})
    scene.claim("n", ONE, **pinned(2, 1024))
    scene.claim("n", TWO, **pinned(2, 1024))
    scene.nodes("n", policy={"dedicated_cpus": "3"}, memory_mib=1024)
    assert scene.refused("resize", "n", instance=uuid(ONE), **pinned(2, 1025)) >= {"insufficient"}
    scene.applied("resize", "n", instance=uuid(ONE), **pinned(1, 512))
    scene.applied("confirm", "n", instance=uuid(ONE))
    assert len(scene.pins("n", ONE)) == 1
    scene.applied("delete", "n", instance=uuid(TWO))
    assert scene.used("n")["pcpus"] == 1


def test_a_disabled_node_refuses_growth_alone() -> None:
    scene = Scene()
    scene.nodes("n", "m")
    scene.claim("n", ONE, **asks(2, 1024))
    scene.claim("n", TWO, **asks(2, 1024))
    scene.applied("resize", "n", instance=uuid(TWO), **asks(4, 1024))
    scene.nodes("n", policy={**FRESH, "enabled": False})
    assert scene.refused("claim", "n", instance=uuid(3), project="blue", **asks()) == {"node_disabled"}
    assert scene.refused("resize", "n", instance=uuid(ONE), **asks(3, 1024)) == {"node_disabled"}
    scene.applied("resize", "n", instance=uuid(ONE), mode="immediate", **asks(1, 1024))
    scene.applied("confirm", "n", instance=uuid(TWO))
    scene.applied("update", "n", instance=uuid(ONE), state="active")
    scene.applied("delete", "n", instance=uuid(TWO))


def test_growth_on_a_disabled_node_is_more_of_any_kind_in_sum() -> None:
    scene, off = Scene(), {"dedicated_cpus": "0-7", "enabled": False}
    cells = [{"id": number, "cpus": cpus, "memory_mib": 4352} for number, cpus in enumerate(("0-3", "4-7"))]
    gpus = [{"address": f"0000:0{number}:00.0", "vendor": "10de", "product": "1db6"} for number in range(2)]
    more: Json = {"cpus": "0-7", "cells": cells, "devices": gpus}
    gpu: Json = {"name": "gpu", "match": [{}], "type": "pci", "affinity": "preferred"}
    one, two = [{**gpu, "count": 1}], [{**gpu, "count": 2}]
    scene.nodes("n", policy={"dedicated_cpus": "0-7"}, **more)
    scene.claim("n", ONE, **pinned(4, 2048, cells=2), devices=one)
    scene.nodes("n", policy=off, **more)
    at_once = {"instance": uuid(ONE), "mode": "immediate"}
    assert scene.refused("resize", "n", **at_once, **pinned(6, 2048, cells=2), devices=one) == {"node_disabled"}
    assert scene.refused("resize", "n", **at_once, **pinned(4, 2048), devices=two) == {"node_disabled"}
    scene.applied("resize", "n", **at_once, **pinned(4, 2048, cells=1), devices=one)
    scene.applied("resize", "n", **at_once, **pinned(3, 2048, cells=1))
    assert scene.refused("resize", "n", **at_once, **pinned(3, 2048), devices=one) == {"node_disabled"}


def test_a_disabled_node_tells_what_else_stands_in_the_way() -> None:
    scene = Scene()
    scene.nodes("n", policy={"enabled": False})
    scene.nodes("m")
    scene.claim("m", ONE)
    large = asks(5, 99999)
    new = {"instance": uuid(TWO), "project": "blue"}
    assert scene.refused("claim", "n", **new, **large) == {"node_disabled", "insufficient"}
    fields = {"instance": uuid(ONE), "destination": "n", **large}
    assert scene.refused("resize", "m", **fields) == {"node_disabled", "insufficient"}
    scene.nodes("m", policy={"enabled": False})
    assert scene.refused("resize", "m", instance=uuid(ONE), **large) == {"node_disabled", "insufficient"}


def test_a_node_in_use_is_removed_only_by_force_and_then_everything_is_given_back() -> None:
    scene = Scene()
    scene.nodes("n", "m")
    scene.claim("n", ONE)
    scene.claim("m", TWO)
    scene.applied("migrate", "m", instance=uuid(TWO), destination="n", reason="live")
    assert scene.refused("node.remove", "n") == {"node_in_use"}
    entries = len(scene.ledger.entries)
    scene.applied("node.remove", "n", force=True)
    assert len(scene.ledger.entries) == entries + 2
    scene.nodes("n")
    assert scene.used("n") == {}


def test_a_claim_just_before_a_removal_is_seen_by_it() -> None:
    scene = Scene()
    scene.nodes("n")
    claim = scene.send("claim", "n", instance=uuid(ONE), project="blue", **asks())
    remove = scene.send("node.remove", "n")
    delete = scene.send("delete", "n", instance=uuid(ONE))
    again = scene.send("node.remove", "n", force=True)
    statuses = [outcome["status"] for outcome in scene.work(claim, remove, delete, again)]
    assert statuses == ["applied", "rejected", "applied", "applied"]


def test_a_node_that_comes_back_under_its_name_starts_empty_and_keeps_what_still_waits() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.world.silent.add("n")
    claim = scene.send("claim", "n", instance=uuid(ONE), project="blue", **asks())
    scene.work()
    scene.applied("node.remove", "n")
    scene.applied("node.put", "n", hypervisor=URI, policy=FRESH)
    behind = scene.send("claim", "n", instance=uuid(TWO), project="blue", **asks())
    scene.work()
    assert scene.status(behind) == "parked"
    scene.world.silent.clear()
    scene.probe("n")
    assert (scene.status(claim), scene.status(behind)) == ("applied", "applied")


def test_other_settings_get_past_what_waits_for_the_old_address() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.world.silent.add("n")
    claim = scene.send("claim", "n", instance=uuid(ONE), project="blue", **asks())
    scene.work()
    scene.applied("node.put", "n", inventory=HOST)
    scene.probe("n")
    assert scene.status(claim) == "applied"


def test_what_the_old_address_said_decides_nothing_at_the_new_one() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.claim("n", ONE)
    claim = scene.send("claim", "n", instance=uuid(TWO), project="blue", **asks())
    put = scene.send("node.put", "n", hypervisor=MOVED, policy={"max_inventory_age_seconds": 3600})
    after = scene.send("claim", "n", instance=uuid(3), project="blue", **asks())
    assert [outcome["status"] for outcome in scene.work(claim, put, after)] == ["applied"] * 3
    assert scene.ledger.nodes["n"].hypervisor == MOVED


def test_who_registers_a_node_is_answered_with_what_its_hypervisor_has() -> None:
    scene = Scene()
    scene.hypervisor("n")
    assert scene.ledger.nodes["n"].observed_at is not None
    assert scene.ledger.nodes["n"].inventory is not None


def test_what_is_known_of_the_hardware_is_used_as_long_as_it_is_fresh() -> None:
    scene = Scene()
    scene.hypervisor("n", policy={"max_inventory_age_seconds": 60})
    scene.claim("n", ONE)
    observed = scene.ledger.nodes["n"].observed_at
    scene.ledger.advance(59)
    scene.claim("n", TWO)
    assert scene.ledger.nodes["n"].observed_at == observed
    scene.ledger.advance(2)
    scene.claim("n", 3)
    assert scene.ledger.nodes["n"].observed_at != observed


def test_an_observation_from_a_clock_ahead_is_not_fresh() -> None:
    scene = Scene()
    scene.hypervisor("n", policy={"max_inventory_age_seconds": 60})
    scene.claim("n", ONE)
    scene.ledger.advance(-3600)
    scene.claim("n", TWO)
    observed = scene.ledger.nodes["n"].observed_at
    assert observed is not None
    assert abs(scene.ledger.clock - observed) < timedelta(seconds=60)


def test_hardware_that_shrank_shows_and_takes_nothing_from_those_who_hold_it() -> None:
    scene = Scene()
    card = {"address": "0000:3b:00.0", "vendor": "10de", "product": "1db6"}
    policy = {**FRESH, "devices": [{"vendor": "10de"}]}
    gpu = {"name": "gpu", "match": [{}], "type": "pci", "count": 1, "affinity": "preferred"}
    scene.hypervisor("n", policy=policy, devices=[card])
    scene.claim("n", ONE, **asks(4, 4096, devices=[gpu]))
    scene.world.inventories["n"] = {**HOST, "cpus": "0", "memory_mib": 1024}
    assert scene.refused("claim", "n", instance=uuid(TWO), project="blue", **asks()) == {"insufficient"}
    assert scene.devices("n", ONE) == {"0000:3b:00.0"}
    outcome = scene.applied("update", "n", instance=uuid(ONE), state="active")
    assert outcome["usage"]["vcpus"] == {"used": 4, "capacity": 2}
    scene.applied("delete", "n", instance=uuid(ONE))
    assert scene.used("n") == {}


def test_what_settings_leave_out_is_the_default_and_a_ratio_is_never_0() -> None:
    scene = Scene()
    scene.nodes("n", policy={"ratios": {"vcpus": "1.5"}, "reserved": {"memory_mib": 4096}})
    scene.nodes("n", policy={})
    assert scene.ledger.nodes["n"].policy == Policy()
    usage = scene.claim("n", ONE)["usage"]
    assert (usage["vcpus"]["capacity"], usage["memory_mib"]["capacity"]) == (16, 8192)
    with pytest.raises(ValidationError):
        Policy.model_validate_json('{"ratios": {"vcpus": "0"}}')


def test_a_command_for_a_node_that_nobody_registered_is_refused() -> None:
    scene = Scene()
    assert scene.refused("claim", "n", instance=uuid(ONE), project="blue", **asks()) == {"node_unknown"}
    assert scene.refused("node.remove", "n") == {"node_unknown"}
    assert scene.refused("update", "n", instance=uuid(ONE), state="active") == {"node_unknown"}


def told(outcome: Json) -> list[str]:
    return [notice["code"] for notice in outcome.get("warnings", [])]


def test_who_registers_a_node_hears_that_its_hypervisor_does_not_answer() -> None:
    scene = Scene()
    scene.world.silent.add("n")
    assert told(scene.applied("node.put", "n", hypervisor=URI, policy=FRESH)) == ["hypervisor_unreachable"]
    scene.world.silent.clear()
    scene.world.inventories["n"] = HOST
    assert told(scene.applied("node.put", "n", hypervisor=URI, policy=FRESH)) == []


def test_who_takes_from_a_node_what_is_held_hears_what_it_is() -> None:
    scene = Scene()
    card = {"address": "0000:3b:00.0", "vendor": "10de", "product": "1db6"}
    gpu = {"name": "gpu", "match": [{}], "type": "pci", "count": 1, "affinity": "preferred"}
    scene.nodes("n", policy={"dedicated_cpus": "0-3"}, devices=[card])
    scene.claim("n", ONE, **pinned(2, 4096), devices=[gpu])
    smaller = {**HOST, "memory_mib": 2048}
    outcome = scene.applied("node.put", "n", inventory=smaller, policy={"dedicated_cpus": "3"}, dry_run=True)
    assert told(outcome) == ["cpu_not_dedicated", "device_not_offered", "used_above_capacity", "used_above_capacity"]
    assert "0-1" in outcome["warnings"][0]["detail"]
    assert scene.applied("node.put", "n", inventory=smaller, policy={})["warnings"]


def test_reserved_pages_that_the_host_has_not_are_told_and_reserved_twice_refused() -> None:
    scene = Scene()
    layout = [{"id": 0, "cpus": "0-3", "memory_mib": 8704, "pages": [{"size_kib": 2048, "total": 16}]}]
    pages = [{"cell": cell, "size_kib": size, "count": 1} for cell, size in ((0, 2048), (0, 4), (1, 2048))]
    outcome = scene.applied("node.put", "n", inventory={**HOST, "cells": layout}, policy={"reserved": {"pages": pages}})
    assert [notice["detail"] for notice in outcome["warnings"]] == [
        "reserved.pages: cell 0 has no pages of 4 KiB",
        "reserved.pages: the host has no cell 1",
    ]
    with pytest.raises(ValidationError, match="reserved twice"):
        Policy.model_validate({"reserved": {"pages": [*pages, {**pages[0], "count": 5}]}})
