"""One host is one node, whatever names and addresses it is registered under."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from schemas import Inventory, parse_command
from worker.accounting.state.view import Facts, Observation, View
from worker.engine.batch import Decider
from worker.engine.intake import Item, fingerprint
from worker.engine.ports import Delivery, ReadSet

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URI, OTHER_URI = "qemu+tls://host-1/system", "qemu+tls://host-1.example.org/system"
MINE, YOURS = UUID(int=0x1111), UUID(int=0x2222)
INVENTORY = Inventory(cpus="0-3", memory_mib=4096)


def put(node: str, kind: str = "node.put", **fields: object) -> Item:
    fields = {"hypervisor": URI} if kind == "node.put" and not fields else fields
    head = {"version": 1, "id": str(uuid4()), "kind": kind, "node": node, "issued_at": NOW.isoformat()}
    body = json.dumps({**head, **fields}).encode()
    command = parse_command(body)
    return Item(command, fingerprint(command), Delivery(0, body, 1, None, redelivered=False, received_at=0.0))


def decide(view: View, items: list[Item], hosts: dict[str, UUID | None], address: str = URI) -> list[str]:
    """The statuses of commands decided while nodes answer as these hosts, or with their reasons' codes."""
    seen = {name: Observation(NOW, address, INVENTORY, host_uuid=host) for name, host in hosts.items()}
    loaded = ReadSet(view, {}, NOW)
    result = Decider(loaded, Facts(seen), 0.0, timedelta(days=1), lambda _uri: None).run(items)
    assert not result.inquiries
    outcomes = [json.loads(rendered.text) for _, rendered in result.outcomes]
    return [" ".join(reason["code"] for reason in outcome["reasons"]) or outcome["status"] for outcome in outcomes]


def test_a_host_that_is_registered_is_refused_under_another_name_and_the_node_is_named() -> None:
    view = View()
    assert decide(view, [put("host-1")], {"host-1": MINE}) == ["applied"]
    assert decide(view, [put("HOST-1", hypervisor=OTHER_URI)], {"HOST-1": MINE}, OTHER_URI) == ["hypervisor_taken"]
    assert list(view.nodes) == ["host-1"]


def test_of_two_names_for_one_host_in_one_batch_the_first_has_it() -> None:
    view = View()
    assert decide(view, [put("a"), put("b"), put("c")], {"a": MINE, "b": MINE, "c": YOURS}) == [
        "applied",
        "hypervisor_taken",
        "applied",
    ]


def test_settings_of_the_same_node_and_hosts_that_tell_no_uuid_are_never_taken() -> None:
    view = View()
    for _ in range(2):
        assert decide(view, [put("a"), put("b"), put("c")], {"a": MINE, "b": None, "c": None}) == ["applied"] * 3


def test_a_host_can_be_registered_anew_once_its_node_is_removed_or_has_another_source() -> None:
    view = View()
    assert decide(view, [put("a")], {"a": MINE}) == ["applied"]
    assert decide(view, [put("a", "node.remove"), put("b")], {"b": MINE}) == ["applied", "applied"]
    assert view.nodes["b"].inventory == INVENTORY
    pushed = put("b", inventory={"cpus": "0", "memory_mib": 1})
    assert decide(view, [pushed, put("c")], {"c": MINE}) == ["applied", "applied"]
    assert (view.hosts, view.nodes["b"].host_uuid) == ({MINE: "c"}, None)


def test_labels_are_kept_with_the_node_until_others_are_put() -> None:
    view = View()
    for labels in ({"rack": "r1", "row": "7"}, {"rack": "r2"}):
        assert decide(view, [put("a", hypervisor=URI, labels=labels)], {"a": MINE}) == ["applied"]
        assert view.nodes["a"].labels == labels


def test_an_answer_of_another_nodes_host_is_none() -> None:
    view = View()
    assert decide(view, [put("a"), put("b")], {"a": MINE, "b": YOURS}) == ["applied", "applied"]
    claim = put("b", "claim", instance=str(uuid4()), project="p", resources={"vcpus": 1, "memory_mib": 1})
    assert decide(view, [claim], {"b": MINE}) == ["hypervisor_unreachable"]
    assert (view.nodes["b"].reachable, view.nodes["b"].host_uuid) == (False, YOURS)


def test_a_host_with_a_new_board_keeps_its_node() -> None:
    view = View()
    assert decide(view, [put("a")], {"a": MINE}) == ["applied"]
    claim = put("a", "claim", instance=str(uuid4()), project="p", resources={"vcpus": 1, "memory_mib": 1})
    assert decide(view, [claim], {"a": YOURS}) == ["applied"]
    assert view.hosts == {YOURS: "a"}
    assert view.nodes["a"].host_uuid == YOURS


def test_a_host_is_renamed_where_the_put_replaces_its_node_and_under_no_other_condition() -> None:
    view = View()
    assert decide(view, [put("a"), put("b")], {"a": MINE, "b": YOURS}) == ["applied", "applied"]
    other = put("c", hypervisor=URI, replaces="b")
    assert decide(view, [other], {"c": MINE}) == ["hypervisor_taken"]
    unlike = put("c", hypervisor=URI, replaces="b")
    assert decide(view, [unlike], {"c": UUID(int=0x3333)}) == ["invalid_request"]
    assert decide(view, [put("c", hypervisor=URI, replaces="b")], {"c": YOURS}) == ["applied"]
    assert (view.hosts, sorted(view.nodes)) == ({MINE: "a", YOURS: "c"}, ["a", "c"])
    assert decide(view, [put("b")], {"b": YOURS}) == ["hypervisor_taken"]


def test_a_host_that_does_not_answer_keeps_its_uuid_under_its_new_name() -> None:
    view = View()
    assert decide(view, [put("a")], {"a": MINE}) == ["applied"]
    loaded = ReadSet(view, {}, NOW)
    silent = Facts({"b": Observation(NOW, OTHER_URI, None, "it does not answer")})
    result = Decider(loaded, silent, 0.0, timedelta(days=1), lambda _uri: None).run(
        [put("b", hypervisor=OTHER_URI, replaces="a")]
    )
    (outcome,) = [json.loads(rendered.text) for _, rendered in result.outcomes]
    assert [one["code"] for one in outcome["warnings"]] == ["hypervisor_unreachable"]
    assert (view.hosts, view.nodes["b"].inventory) == ({MINE: "b"}, INVENTORY)
