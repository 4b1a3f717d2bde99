from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model.scene import FRESH, Scene, asks, pinned, uuid
from tests.reference.room import Json

CELLS: Json = {
    "cpus": "0-7",
    "cells": [
        {"id": 0, "cpus": "0-3", "memory_mib": 4352},
        {"id": 1, "cpus": "4-7", "memory_mib": 4352},
    ],
    "devices": [
        {"address": "0000:5e:00.0", "vendor": "8086", "product": "158b", "type": "pf"},
        {"address": "0000:5e:02.0", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"},
        {"address": "0000:5e:02.1", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"},
    ],
}
ALONE: Json = {"shared_cpus": "4", "dedicated_cpus": "0-3", "max_inventory_age_seconds": 0}
MINE, OTHER = 1, 2
OLD = pinned(2, 1024)


def full_node() -> Scene:
    """Of four CPUs to be had alone, two are another's: with one's own two there are none to spare."""
    scene = Scene()
    scene.nodes("n", policy=ALONE, cpus="0-4")
    scene.claim("n", OTHER, **pinned(2, 1024))
    return scene


def prepare(scene: Scene, new: Json) -> None:
    scene.applied("resize", "n", instance=uuid(MINE), **new)


def confirm(scene: Scene, new: Json) -> Json:
    prepare(scene, new)
    scene.applied("confirm", "n", instance=uuid(MINE))
    return new


def revert(scene: Scene, new: Json) -> Json:
    prepare(scene, new)
    scene.applied("revert", "n", instance=uuid(MINE))
    return OLD


def at_once(scene: Scene, new: Json) -> Json:
    scene.applied("resize", "n", instance=uuid(MINE), mode="immediate", **new)
    return new


def delete_prepared(scene: Scene, new: Json) -> Json:
    prepare(scene, new)
    scene.applied("delete", "n", instance=uuid(MINE))
    return {}


def abort_prepared(scene: Scene, new: Json) -> Json:
    prepare(scene, new)
    scene.applied("abort", "n", instance=uuid(MINE))
    return OLD


def delete_confirmed(scene: Scene, new: Json) -> Json:
    confirm(scene, new)
    scene.applied("delete", "n", instance=uuid(MINE))
    return {}


def delete_reverted(scene: Scene, new: Json) -> Json:
    revert(scene, new)
    scene.applied("delete", "n", instance=uuid(MINE))
    return {}


@pytest.mark.parametrize("new", [pinned(2, 2048), pinned(1, 1024), pinned(1, 4096), pinned(2, 1024), asks(1, 512)])
@pytest.mark.parametrize(
    "end",
    [confirm, revert, at_once, delete_prepared, abort_prepared, delete_confirmed, delete_reverted],
)
def test_a_pinned_instance_is_resized_with_no_cpu_to_spare_and_ends_as_if_one_size_had_been_claimed_alone(
    new: Json, end: Callable[[Scene, Json], Json]
) -> None:
    scene, alone = full_node(), full_node()
    scene.claim("n", MINE, **OLD)
    left = end(scene, new)
    if left:
        alone.claim("n", MINE, **left)
    assert scene.used("n") == alone.used("n")
    assert scene.pins("n", OTHER) == alone.pins("n", OTHER)
    assert len(scene.pins("n", MINE)) == len(alone.pins("n", MINE))
    spare = 4 - len(scene.pins("n", MINE)) - 2
    assert not spare or scene.claim("n", 3, **pinned(spare))


def test_what_does_not_fit_together_with_others_is_refused_and_changes_nothing() -> None:
    scene = full_node()
    scene.claim("n", MINE, **OLD)
    before = scene.used("n"), scene.pins("n", MINE)
    assert scene.refused("resize", "n", instance=uuid(MINE), **pinned(3)) == {"insufficient", "no_numa_fit"}
    assert (scene.used("n"), scene.pins("n", MINE)) == before


def test_a_move_within_a_node_is_charged_the_larger_of_both_sizes_of_each_resource_and_cell() -> None:
    scene = Scene()
    scene.nodes("n", policy={"shared_cpus": "0", "dedicated_cpus": "1-7"}, **CELLS)
    scene.claim("n", MINE, **pinned(2, 1024))
    cell = next(name for name in scene.used("n") if name.startswith("cell/"))
    scene.applied("resize", "n", instance=uuid(MINE), **pinned(1, 2048))
    assert scene.used("n") == {"pcpus": 2, "memory_mib": 2048, cell: 2048}
    scene.applied("confirm", "n", instance=uuid(MINE))
    assert scene.used("n") == {"pcpus": 1, "memory_mib": 2048, cell: 2048}


def test_a_move_within_a_node_is_charged_each_cpu_of_both_sizes_once() -> None:
    scene = Scene()
    cores = {"siblings": ["0,1", "2,3"], "cpus": "0-3", "memory_mib": 8192, "id": 0}
    scene.nodes("n", policy={"dedicated_cpus": "0,2"}, cpus="0-3", cells=[cores])
    scene.claim("n", MINE, **pinned(2))
    scene.nodes("n", policy={"dedicated_cpus": "0-3"}, cpus="0-3", cells=[cores])
    scene.applied("resize", "n", instance=uuid(MINE), **pinned(2, thread_policy="require"))
    assert scene.pins("n", MINE) == {0, 1, 2}
    assert scene.used("n")["pcpus"] == 3
    scene.applied("revert", "n", instance=uuid(MINE))
    assert (scene.used("n")["pcpus"], scene.pins("n", MINE)) == (2, {0, 2})


def test_a_move_within_a_node_holds_the_devices_of_both_sizes_and_keeps_what_it_has() -> None:
    nic = {"name": "nic", "type": "vf", "match": [{}], "affinity": "preferred"}
    scene = Scene()
    scene.nodes("n", **CELLS)
    scene.claim("n", MINE, **asks(devices=[{**nic, "count": 1}]))
    assert scene.devices("n", MINE) == {"0000:5e:02.0"}
    scene.applied("resize", "n", instance=uuid(MINE), **asks(devices=[{**nic, "count": 2}]))
    assert scene.devices("n", MINE) == {"0000:5e:02.0", "0000:5e:02.1"}
    scene.applied("revert", "n", instance=uuid(MINE))
    assert scene.devices("n", MINE) == {"0000:5e:02.0"}
    scene.applied("resize", "n", instance=uuid(MINE), **asks())
    assert scene.devices("n", MINE) == {"0000:5e:02.0"}
    scene.applied("confirm", "n", instance=uuid(MINE))
    assert scene.devices("n", MINE) == set()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("resize", asks(2, 1024)), ("migrate", {"reason": "live"}), ("migrate", {"reason": "cold"})],
)
def test_a_move_to_another_node_is_charged_on_both_until_it_is_confirmed_or_reverted(kind: str, fields: Json) -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE, **asks(1, 512))
    old = scene.used("a")
    new = {"vcpus": 2, "memory_mib": 1024} if kind == "resize" else old
    scene.applied(kind, "a", instance=uuid(MINE), destination="b", **fields)
    assert (scene.used("a"), scene.used("b")) == (old, new)
    scene.applied("revert", "b", instance=uuid(MINE))
    assert (scene.used("a"), scene.used("b")) == (old, {})
    scene.applied(kind, "a", instance=uuid(MINE), destination="b", **fields)
    scene.applied("confirm", "a", instance=uuid(MINE))
    assert (scene.used("a"), scene.used("b")) == ({}, new)


def test_a_second_move_is_refused_while_one_is_open() -> None:
    scene = Scene()
    scene.nodes("a", "b", "c")
    scene.claim("a", MINE)
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="live")
    for kind, fields in (
        ("migrate", {"destination": "c", "reason": "evacuate"}),
        ("resize", asks(2)),
        ("resize", {**asks(2), "mode": "immediate"}),
    ):
        assert scene.refused(kind, "a", instance=uuid(MINE), **fields) == {"move_in_progress"}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("delete", {}),
        ("update", {"state": "shelved_offloaded"}),
        ("update", {"state": "deleted"}),
    ],
)
@pytest.mark.parametrize("side", ["a", "b"])
def test_what_ends_an_instance_in_the_middle_of_a_move_releases_both_sides(kind: str, fields: Json, side: str) -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE)
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="live")
    scene.applied(kind, side, instance=uuid(MINE), **fields)
    assert (scene.used("a"), scene.used("b")) == ({}, {})


def test_a_build_that_fails_on_the_new_side_of_a_move_leaves_the_old_one_as_it_was() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE)
    scene.applied("update", "a", instance=uuid(MINE), state="active")
    before = scene.used("a")
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="live")
    scene.applied("abort", "b", instance=uuid(MINE))
    assert (scene.used("a"), scene.used("b"), scene.guest(MINE).state) == (before, {}, "active")
    assert (scene.ledger.nodes["a"].failed_builds, scene.ledger.nodes["b"].failed_builds) == (0, 1)
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="live")
    scene.applied("abort", "a", instance=uuid(MINE))
    assert (scene.used("a"), scene.used("b")) == ({}, {})
    assert scene.ledger.nodes["a"].failed_builds == 1


def test_a_move_is_confirmed_or_reverted_once() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE)
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="live")
    scene.applied("confirm", "a", instance=uuid(MINE))
    assert scene.refused("confirm", "b", instance=uuid(MINE)) == {"no_move"}
    assert scene.refused("revert", "b", instance=uuid(MINE)) == {"no_move"}
    assert scene.refused("confirm", "a", instance=uuid(MINE)) == {"instance_unknown"}


def test_an_instance_is_evacuated_from_a_node_that_does_not_answer_while_others_wait_for_it() -> None:
    scene = Scene()
    scene.hypervisor("dead")
    scene.nodes("b")
    scene.claim("dead", MINE)
    scene.world.silent.add("dead")
    waiting = scene.send("claim", "dead", instance=uuid(9), project="blue", **asks())
    behind = scene.send("update", "dead", instance=uuid(MINE), state="active")
    scene.applied("migrate", "dead", instance=uuid(MINE), destination="b", reason="evacuate")
    scene.applied("confirm", "dead", instance=uuid(MINE))
    assert (scene.used("dead"), scene.used("b")) == ({}, {"vcpus": 1, "memory_mib": 512})
    assert scene.status(waiting) == scene.status(behind) == "parked"
    scene.world.silent.clear()
    scene.probe("dead")
    assert (scene.status(waiting), scene.status(behind)) == ("applied", "rejected")


def test_an_instance_is_evacuated_whatever_its_state() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE)
    scene.applied("update", "a", instance=uuid(MINE), state="error", task="rebuild_spawning")
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="evacuate")
    scene.applied("update", "b", instance=uuid(MINE), state="error", task="rebuilding")
    assert scene.used("b") == {"vcpus": 1, "memory_mib": 512}


def test_an_instance_leaves_a_disabled_node_and_enters_none() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE)
    scene.nodes("a", policy={**FRESH, "enabled": False})
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="evacuate")
    scene.applied("confirm", "a", instance=uuid(MINE))
    assert scene.refused("migrate", "b", instance=uuid(MINE), destination="a", reason="live") == {"node_disabled"}


def test_an_instance_is_evacuated_from_a_node_that_was_removed_under_it() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE, **asks(2, 1024))
    scene.applied("node.remove", "a", force=True)
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="evacuate")
    assert scene.used("b") == {"vcpus": 2, "memory_mib": 1024}
    scene.applied("revert", "b", instance=uuid(MINE))
    assert scene.used("b") == {}
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="evacuate")
    scene.applied("confirm", "b", instance=uuid(MINE))
    assert scene.used("b") == {"vcpus": 2, "memory_mib": 1024}
    assert scene.refused("migrate", "a", instance=uuid(MINE), destination="b", reason="cold") == {"node_unknown"}


def test_a_move_whose_old_node_is_removed_can_be_confirmed_or_reverted_and_begun_again() -> None:
    scene = Scene()
    scene.nodes("a", "b", "c")
    scene.claim("a", MINE, **asks(2, 1024))
    scene.applied("resize", "a", instance=uuid(MINE), destination="b", **asks(4, 2048))
    scene.applied("node.remove", "a", force=True)
    scene.applied("revert", "b", instance=uuid(MINE))
    assert scene.used("b") == {}
    scene.applied("migrate", "a", instance=uuid(MINE), destination="c", reason="evacuate")
    assert scene.used("c") == {"vcpus": 2, "memory_mib": 1024}


def test_a_move_whose_new_node_is_removed_is_undone() -> None:
    scene = Scene()
    scene.nodes("a", "b")
    scene.claim("a", MINE)
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="live")
    scene.applied("node.remove", "b", force=True)
    assert scene.refused("confirm", "a", instance=uuid(MINE)) == {"no_move"}
    assert scene.used("a") == {"vcpus": 1, "memory_mib": 512}


def test_a_migration_may_bring_another_topology_and_other_devices() -> None:
    scene = Scene()
    scene.nodes("a")
    scene.nodes("b", policy={"dedicated_cpus": "0-7"}, **CELLS)
    scene.claim("a", MINE, **asks(2, 512))
    alone = {"cpu_policy": "dedicated"}
    scene.applied("migrate", "a", instance=uuid(MINE), destination="b", reason="cold", topology=alone)
    scene.applied("confirm", "b", instance=uuid(MINE))
    assert (scene.used("a"), len(scene.pins("b", MINE))) == ({}, 2)


def test_a_failed_preparation_leaves_both_nodes_as_they_were() -> None:
    scene = Scene()
    scene.nodes("a")
    scene.nodes("b", memory_mib=1024)
    scene.claim("a", MINE, **asks(1, 1024))
    before = scene.used("a")
    assert scene.refused("migrate", "a", instance=uuid(MINE), destination="b", reason="live") == {"insufficient"}
    assert (scene.used("a"), scene.used("b")) == (before, {})
    assert scene.guest(MINE).move is None


@pytest.mark.parametrize("mode", ["prepare", "immediate"])
def test_a_refused_resize_tells_what_the_node_has_with_the_instance_on_it(mode: str) -> None:
    scene = Scene()
    scene.nodes("n", policy={"ratios": {"vcpus": "1.0"}})
    scene.claim("n", MINE, **asks(2))
    scene.claim("n", OTHER, **asks(1))
    (why,) = scene.do("resize", "n", instance=uuid(MINE), mode=mode, **asks(4))["reasons"]
    assert (why["used"], why["capacity"], why["short_by"]) == (3, 4, 1)
    assert "4 vcpus requested, 2 held, 1 of 4 free: 1 too few" in why["detail"]
