"""A node that is renamed keeps all it holds, and its old name is told from one that never was."""

from __future__ import annotations

import pytest

from tests.model.scene import FRESH, HOST, URI, Scene, asks, pinned, uuid
from tests.reference.room import Json

ONE, TWO, THREE = 1, 2, 3
CARD = {"address": "0000:3b:00.0", "vendor": "10de", "product": "1db6"}
GPU: Json = {"name": "gpu", "match": [{}], "count": 1, "type": "pci", "affinity": "preferred"}
SPLIT = {**FRESH, "dedicated_cpus": "2-3", "shared_cpus": "0-1"}


def occupied() -> Scene:
    """A node with a pinned guest, one with a device and a lease, and a failed build."""
    scene = Scene()
    scene.nodes("old", policy=SPLIT, devices=[CARD])
    scene.nodes("other")
    scene.claim("old", ONE, **pinned(2))
    scene.claim("old", TWO, **asks(), devices=[GPU], lease_seconds=60)
    scene.claim("old", THREE)
    scene.applied("abort", "old", instance=uuid(THREE))
    return scene


def renamed(scene: Scene, old: str = "old", new: str = "new", **more: object) -> Json:
    inventory = {"inventory": {**HOST, "devices": [CARD]}} if "hypervisor" not in more else {}
    return scene.do("node.put", new, replaces=old, policy=SPLIT, **inventory, **more)


def details(outcome: Json) -> list[tuple[str, str]]:
    return [(why["code"], why["detail"]) for why in outcome["reasons"]]


def test_a_renamed_node_keeps_what_it_holds_and_its_identity() -> None:
    scene = occupied()
    before = scene.ledger.nodes["old"]
    assert renamed(scene)["status"] == "applied"
    after = scene.ledger.nodes["new"]
    assert "old" not in scene.ledger.nodes
    assert (after.id, after.failed_builds) == (before.id, 1)
    assert after.generation > before.generation
    assert (scene.used("new"), scene.pins("new", ONE)) == (before.occupancy.used, {2, 3})
    assert scene.devices("new", TWO) == {CARD["address"]}
    scene.pass_time(90)
    assert scene.used("new") == {"pcpus": 2, "memory_mib": 512, "cell/0/memory_mib": 512}
    scene.applied("delete", "new", instance=uuid(ONE))
    assert scene.used("new") == {}


def test_the_history_of_either_name_adds_up_by_itself() -> None:
    scene = occupied()
    assert renamed(scene)["status"] == "applied"
    sums: dict[str, dict[str, int]] = {"old": {}, "new": {}}
    for entry in scene.ledger.entries:
        for counter, delta in zip(entry["counters"], entry["deltas"], strict=True):
            sums[entry["node"]][counter] = sums[entry["node"]].get(counter, 0) + delta
    assert set(sums["old"].values()) == {0}
    assert {name: amount for name, amount in sums["new"].items() if amount} == scene.used("new")


@pytest.mark.parametrize(("ends", "kept"), [("confirm", "destination"), ("revert", "source")])
@pytest.mark.parametrize("renames", ["source", "destination"])
def test_an_open_move_goes_on_whichever_side_is_renamed(ends: str, kept: str, renames: str) -> None:
    scene = Scene()
    scene.nodes("source", "destination")
    scene.claim("source", ONE)
    scene.applied("migrate", "source", instance=uuid(ONE), destination="destination", reason="cold")
    scene.applied("node.put", "new", replaces=renames, inventory=HOST, policy=FRESH)
    names = {"source": "source", "destination": "destination", renames: "new"}
    scene.applied(ends, names["destination"], instance=uuid(ONE))
    assert [(held.node, held.role) for held in scene.guest(ONE).holds] == [(names[kept], "active")]


def test_a_move_within_the_node_is_carried_with_both_sizes() -> None:
    scene = Scene()
    scene.nodes("old")
    scene.claim("old", ONE)
    scene.applied("resize", "old", instance=uuid(ONE), **asks(2, 1024))
    before = scene.used("old")
    scene.applied("node.put", "new", replaces="old", inventory=HOST, policy=FRESH)
    assert scene.used("new") == before
    scene.applied("revert", "new", instance=uuid(ONE))
    assert scene.used("new") == {"vcpus": 1, "memory_mib": 512}


def test_commands_for_the_old_name_are_told_the_new_one_until_it_is_a_node_again() -> None:
    scene = occupied()
    assert renamed(scene)["status"] == "applied"
    for kind, node, more in (
        ("update", "old", {"instance": uuid(ONE), "state": "active"}),
        ("claim", "old", {"instance": uuid(9), "project": "blue", **asks()}),
        ("audit", "old", {}),
        ("node.remove", "old", {}),
    ):
        assert details(scene.do(kind, node, **more)) == [("node_unknown", "node old was renamed to new: use that name")]
    assert renamed(scene, "new", "newer")["status"] == "applied"
    assert "renamed to newer" in details(scene.do("node.remove", "old"))[0][1]
    assert "renamed to newer" in details(scene.do("node.remove", "new"))[0][1]
    scene.nodes("old")
    scene.applied("node.remove", "old")
    assert details(scene.do("node.remove", "old")) == [("node_unknown", "node old is not registered")]
    scene.applied("node.remove", "newer", force=True)
    assert details(scene.do("node.remove", "new")) == [("node_unknown", "node new is not registered")]


def test_a_delete_finds_its_instance_under_whichever_name_it_is_sent() -> None:
    scene = occupied()
    assert renamed(scene)["status"] == "applied"
    scene.applied("delete", "old", instance=uuid(ONE))
    assert scene.pins("new", ONE) == set()


def test_it_can_be_named_as_it_was() -> None:
    scene = occupied()
    before = scene.used("old")
    assert renamed(scene)["status"] == renamed(scene, "new", "old")["status"] == "applied"
    assert (scene.used("old"), scene.ledger.former) == (before, {"new": "old"})


def test_the_same_renaming_once_more_is_other_settings_for_the_node() -> None:
    scene = occupied()
    assert renamed(scene)["status"] == "applied"
    assert renamed(scene, labels={"rack": "r1"})["status"] == "applied"
    assert scene.ledger.nodes["new"].labels == {"rack": "r1"}
    assert scene.pins("new", ONE) == {2, 3}


def test_what_cannot_be_renamed_is_refused_with_every_reason() -> None:
    scene = occupied()
    assert [code for code, _ in details(renamed(scene, "nowhere"))] == ["node_unknown"]
    assert [code for code, _ in details(renamed(scene, "nowhere", "other"))] == ["node_unknown", "node_in_use"]
    assert details(renamed(scene, "old", "other")) == [
        ("node_in_use", "node other is registered beside old: remove one of them, or leave replaces out")
    ]
    assert scene.pins("old", ONE) == {2, 3}


def test_a_node_for_which_commands_wait_is_not_renamed_before_they_are_answered() -> None:
    scene = Scene()
    scene.hypervisor("old")
    scene.world.inventories["new"] = HOST
    scene.world.silent.add("old")
    waits = scene.send("claim", "old", instance=uuid(ONE), project="blue", **asks())
    scene.work()
    assert scene.status(waits) == "parked"
    outcome = renamed(scene, hypervisor=URI)
    assert details(outcome) == [
        ("node_in_use", "1 commands wait for the hypervisor of old: have it answer first, with a node.put of old")
    ]
    scene.world.silent.clear()
    scene.probe("old")
    assert scene.status(waits) == "applied"
    assert renamed(scene, hypervisor=URI)["status"] == "applied"
    assert scene.used("new") == {"vcpus": 1, "memory_mib": 512}


def test_a_dry_run_of_a_renaming_changes_nothing() -> None:
    scene = occupied()
    before = scene.used("old")
    assert renamed(scene, dry_run=True)["status"] == "applied"
    assert (scene.used("old"), "new" in scene.ledger.nodes) == (before, False)


def test_a_node_that_is_put_renamed_and_put_again_in_one_batch_is_two_in_the_end() -> None:
    scene = occupied()
    put = scene.send("node.put", "new", replaces="old", policy=SPLIT, inventory={**HOST, "devices": [CARD]})
    again = scene.send("node.put", "old", inventory=HOST, policy=FRESH)
    assert {one["status"] for one in scene.work(put, again)} == {"applied"}
