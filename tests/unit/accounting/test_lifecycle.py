from __future__ import annotations

from datetime import timedelta

import pytest

from tests.model.core import START
from tests.model.scene import FRESH, PARK_DEADLINE, Scene, asks, uuid
from tests.reference.room import Json

ONE = 1
HELD = {"vcpus": 1, "memory_mib": 512}


def leased(*, hypervisor: bool = False) -> Scene:
    scene = Scene()
    if hypervisor:
        scene.hypervisor("n")
    else:
        scene.nodes("n")
    scene.nodes("m")
    scene.claim("n", ONE, lease_seconds=60)
    return scene


def test_a_lease_that_nothing_confirms_is_given_back_with_an_outcome_and_an_entry() -> None:
    scene = leased()
    scene.pass_time(59)
    assert scene.used("n") == HELD
    scene.pass_time(2)
    assert scene.used("n") == {}
    assert sorted(scene.ledger.entries[-1]["deltas"]) == [-512, -1]
    assert [known.kind for known in scene.ledger.known.values()].count("expire") == 1
    scene.claim("n", ONE)


@pytest.mark.parametrize(("kind", "fields"), [("update", {"state": "active"}), ("update", {}), ("confirm", {})])
def test_a_lease_is_confirmed_by_any_report_and_by_confirm(kind: str, fields: Json) -> None:
    scene = leased()
    scene.applied(kind, "n", instance=uuid(ONE), **fields)
    scene.pass_time(3600)
    assert scene.used("n") == HELD
    assert scene.refused("confirm", "n", instance=uuid(ONE)) == {"no_move"}


@pytest.mark.parametrize("state", ["running", "shut_off"])
def test_a_lease_is_confirmed_by_the_domain_that_is_there_when_it_runs_out(state: str) -> None:
    scene = leased(hypervisor=True)
    scene.world.domains["n", uuid(ONE)] = state
    scene.pass_time(61)
    scene.world.domains.clear()
    scene.pass_time(3600)
    assert scene.used("n") == HELD


def test_a_lease_runs_on_while_its_hypervisor_does_not_answer() -> None:
    scene = leased(hypervisor=True)
    scene.world.silent.add("n")
    scene.pass_time(3600)
    assert scene.used("n") == HELD
    scene.world.silent.clear()
    scene.pass_time(1)
    assert scene.used("n") == {}


def test_a_lease_expires_once_however_many_notice_it_and_although_the_clock_was_put_back() -> None:
    scene = leased()
    scene.ledger.advance(61)
    scene.path.expire_leases()
    scene.path.expire_leases()
    scene.ledger.advance(-30)
    scene.work()
    assert scene.used("n") == HELD
    scene.pass_time(30)
    assert scene.used("n") == {}


@pytest.mark.parametrize("destination", ["n", "m"])
def test_a_prepared_move_that_nothing_confirms_is_undone(destination: str) -> None:
    scene = Scene()
    scene.nodes("n", "m")
    scene.claim("n", ONE)
    scene.applied("resize", "n", instance=uuid(ONE), destination=destination, lease_seconds=60, **asks(2))
    scene.pass_time(61)
    assert (scene.used("n"), scene.used("m")) == (HELD, {})
    assert scene.refused("revert", "n", instance=uuid(ONE)) == {"no_move"}


def test_a_prepared_move_is_not_undone_under_a_domain_on_its_new_node() -> None:
    scene = Scene()
    scene.nodes("n")
    scene.hypervisor("m")
    scene.claim("n", ONE)
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="live", lease_seconds=60)
    scene.world.domains["m", uuid(ONE)] = "running"
    scene.pass_time(61)
    assert scene.used("m") == HELD
    scene.applied("confirm", "m", instance=uuid(ONE))
    assert (scene.used("n"), scene.used("m")) == ({}, HELD)


def test_undoing_a_move_does_not_confirm_the_claim_it_began_from() -> None:
    scene = leased()
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="cold")
    scene.applied("revert", "n", instance=uuid(ONE))
    scene.pass_time(61)
    assert scene.used("n") == {}


def test_a_claim_whose_lease_runs_out_in_the_middle_of_a_move_is_released_on_both_nodes() -> None:
    scene = leased()
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="cold", lease_seconds=60)
    scene.pass_time(61)
    assert (scene.used("n"), scene.used("m")) == ({}, {})


def test_the_lease_of_a_claim_waits_for_the_end_of_an_open_move() -> None:
    scene = leased()
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="cold")
    scene.pass_time(3600)
    assert (scene.used("n"), scene.used("m")) == (HELD, HELD)
    scene.applied("confirm", "m", instance=uuid(ONE))
    scene.pass_time(3600)
    assert (scene.used("n"), scene.used("m")) == ({}, HELD)


def test_the_lease_of_a_claim_that_ran_out_meanwhile_ends_it_once_the_move_is_undone() -> None:
    scene = leased()
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="cold")
    scene.pass_time(3600)
    scene.applied("revert", "n", instance=uuid(ONE))
    scene.pass_time(1)
    assert (scene.used("n"), scene.used("m")) == ({}, {})


def test_a_move_whose_lease_runs_out_after_that_of_its_claim_is_undone_and_the_claim_with_it() -> None:
    scene = leased()
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="cold", lease_seconds=600)
    scene.pass_time(300)
    assert (scene.used("n"), scene.used("m")) == (HELD, HELD)
    scene.pass_time(301)
    assert (scene.used("n"), scene.used("m")) == ({}, {})


def test_confirming_a_move_makes_it_stay_for_good() -> None:
    scene = leased()
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="cold", lease_seconds=60)
    scene.applied("confirm", "m", instance=uuid(ONE))
    scene.pass_time(3600)
    assert scene.used("m") == HELD


@pytest.mark.parametrize("state", ["stopped", "error", "shelved", "paused", "soft_deleted", "building", None])
def test_a_state_that_keeps_its_resources_keeps_them(state: str | None) -> None:
    scene = Scene()
    scene.nodes("n")
    scene.claim("n", ONE)
    scene.applied("update", "n", instance=uuid(ONE), state=state, task="deleting")
    assert scene.used("n") == HELD


def test_a_shelved_instance_gives_back_once_and_is_claimed_again_when_it_is_unshelved() -> None:
    scene = Scene()
    scene.nodes("n")
    scene.claim("n", ONE)
    for _ in range(2):
        scene.applied("update", "n", instance=uuid(ONE), state="shelved_offloaded")
    assert scene.used("n") == {}
    scene.claim("n", ONE)
    scene.applied("update", "n", instance=uuid(ONE), state="shelved_offloaded", task="spawning")
    assert scene.used("n") == HELD


def test_after_a_delete_nothing_is_held_whatever_arrives_later() -> None:
    scene = Scene()
    scene.nodes("n", "m")
    scene.claim("n", ONE)
    scene.applied("delete", "n", instance=uuid(ONE))
    late: list[tuple[str, Json]] = [
        ("claim", {"project": "blue", **asks()}),
        ("resize", asks(2)),
        ("migrate", {"destination": "m", "reason": "evacuate"}),
        ("confirm", {}),
        ("revert", {}),
        ("abort", {}),
        ("update", {"state": "active"}),
    ]
    for kind, fields in late:
        assert scene.refused(kind, "n", instance=uuid(ONE), **fields) == {"superseded"}
    scene.applied("delete", "n", instance=uuid(ONE))
    assert (scene.used("n"), scene.used("m")) == ({}, {})


def test_a_delete_that_overtakes_its_claim_leaves_nothing() -> None:
    scene = Scene()
    scene.nodes("n")
    scene.applied("delete", "n", instance=uuid(ONE))
    assert scene.refused("claim", "n", instance=uuid(ONE), project="blue", **asks()) == {"superseded"}


def test_a_delete_waits_for_its_domain_and_holds_nothing_else_back() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.claim("n", ONE)
    scene.world.domains["n", uuid(ONE)] = "running"
    delete = scene.send("delete", "n", instance=uuid(ONE))
    scene.work()
    assert scene.status(delete) == "parked"
    scene.claim("n", 2)
    scene.probe("n")
    assert scene.status(delete) == "parked"
    scene.world.domains.clear()
    scene.probe("n")
    assert scene.status(delete) == "applied"
    assert scene.used("n") == HELD


def test_a_delete_that_waits_is_not_made_stale_by_what_overtakes_it() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.claim("n", ONE, revision=1)
    scene.world.domains["n", uuid(ONE)] = "running"
    delete = scene.send("delete", "n", instance=uuid(ONE), revision=2)
    scene.work()
    scene.applied("update", "n", instance=uuid(ONE), task="deleting", revision=3)
    scene.world.domains.clear()
    scene.probe("n")
    assert scene.status(delete) == "applied"


def test_a_delete_frees_nothing_while_a_hypervisor_does_not_answer_and_is_put_away_in_the_end() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.claim("n", ONE)
    scene.world.silent.add("n")
    delete = scene.send("delete", "n", instance=uuid(ONE))
    scene.work()
    scene.probe("n")
    assert scene.status(delete) == "parked"
    scene.ledger.advance(PARK_DEADLINE)
    scene.probe("n")
    scene.probe("n")
    assert scene.status(delete) == "dead"
    assert scene.used("n") == HELD
    scene.world.silent.clear()
    scene.path.replay(0)
    scene.work()
    assert scene.status(delete) == "applied"
    assert scene.used("n") == {}


def test_a_delete_without_verification_asks_nobody() -> None:
    scene = Scene()
    scene.hypervisor("n")
    scene.claim("n", ONE)
    scene.world.silent.add("n")
    scene.applied("delete", "n", instance=uuid(ONE), verify=False)
    assert scene.used("n") == {}


def test_a_delete_on_a_node_that_is_gone_waits_for_the_one_that_still_holds() -> None:
    scene = Scene()
    scene.nodes("n")
    scene.hypervisor("m")
    scene.claim("n", ONE)
    scene.applied("migrate", "n", instance=uuid(ONE), destination="m", reason="live")
    scene.applied("node.remove", "n", force=True)
    scene.world.silent.add("m")
    delete = scene.send("delete", "n", instance=uuid(ONE))
    scene.work()
    assert scene.status(delete) == "parked"
    scene.world.silent.clear()
    scene.probe("n")
    assert scene.status(delete) == "applied"
    assert scene.used("m") == {}


def test_parked_commands_come_back_in_order_before_all_others() -> None:
    scene = Scene()
    scene.hypervisor("n", policy={**FRESH, "ratios": {"vcpus": "1.0"}})
    scene.world.silent.add("n")
    first = scene.send("claim", "n", instance=uuid(1), project="blue", **asks(4))
    second = scene.send("claim", "n", instance=uuid(2), project="blue", **asks(1))
    scene.work()
    scene.world.silent.clear()
    scene.probe("n")
    scene.probe("n")
    third = scene.send("claim", "n", instance=uuid(3), project="blue", **asks(1))
    scene.work()
    assert [scene.status(command) for command in (first, second, third)] == ["applied", "rejected", "rejected"]


def test_a_command_that_comes_too_late_or_out_of_order_has_no_effect() -> None:
    scene = Scene()
    scene.nodes("n")
    scene.claim("n", ONE, revision=5)
    assert scene.refused("update", "n", instance=uuid(ONE), state="error", revision=5) == {"stale"}
    assert scene.refused("delete", "n", instance=uuid(ONE), revision=4) == {"stale"}
    past = (START - timedelta(seconds=1)).isoformat()
    assert scene.refused("delete", "n", instance=uuid(ONE), expires_at=past) == {"expired"}
    scene.applied("update", "n", instance=uuid(ONE), state="active", revision=6)
    scene.applied("abort", "n", instance=uuid(ONE), revision=7)
    assert scene.refused("claim", "n", instance=uuid(ONE), project="blue", revision=7, **asks()) == {"stale"}
    scene.claim("n", ONE, revision=8)
