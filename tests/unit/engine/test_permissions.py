from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import parse_command
from worker.accounting.state.instances import Holding, Instance
from worker.accounting.state.occupancy import Placement
from worker.engine.intake import Item, fingerprint
from worker.engine.letters import letter_of
from worker.engine.permissions import Concern, Permissions, concern_of
from worker.engine.ports import NO_REPLY, SENDERS_HEADER, Delivery, Parked
from worker.errors import SettingsError
from worker.permission_rules import PermissionRule, RulesError, matcher, read_rules
from worker.settings import load_settings

OWN, OTHER, UNKNOWN, NEIGHBOUR = (UUID(int=number) for number in (1, 2, 3, 4))
NOW = datetime(2026, 11, 22, tzinfo=UTC)
AN_ENVELOPE = {"version": 1, "id": str(UUID(int=99)), "node": "a1", "issued_at": "2026-11-22T07:00:00Z"}
RESOURCES = {"vcpus": 1, "memory_mib": 64}


def instance(id_: UUID, project: str, *nodes: str) -> Instance:
    return Instance(
        id_,
        project=project,
        holdings=tuple(Holding(node, "active", "{}", Placement({}), NOW) for node in nodes),
    )


INSTANCES = {
    OWN: instance(OWN, "acme", "a1"),
    OTHER: instance(OTHER, "rival", "a1", "b1"),
    NEIGHBOUR: instance(NEIGHBOUR, "rival", "a1"),
}


def item(user: str | None = "bob", senders: object = None, **command: Any) -> Item:
    parsed = parse_command(json.dumps({**AN_ENVELOPE, **command}).encode())
    headers = {} if senders is None else {SENDERS_HEADER: senders}
    delivery = Delivery(0, b"", 1, None, False, 0.0, user_id=user, headers=headers)
    return Item(parsed, fingerprint(parsed), delivery)


def rules(*given_rules: dict[str, object]) -> Permissions:
    return Permissions([PermissionRule.model_validate(rule) for rule in given_rules])


BOBS = rules({"users": ["bob"], "nodes": ["a*"], "projects": ["acme"]}, {"users": ["root"]})


def allowed(permissions: Permissions, sent: Item, *, waiting: bool = False) -> bool:
    refusal = permissions.refusal(sent, INSTANCES, waiting=waiting)
    assert refusal is None or (refusal.status, [reason.code for reason in refusal.reasons]) == (
        "rejected",
        ["not_permitted"],
    )
    return refusal is None


def claim(project: str = "acme", **more: object) -> dict[str, Any]:
    return {"kind": "claim", "instance": str(UNKNOWN), "project": project, "resources": RESOURCES, **more}


def on(id_: UUID, kind: str = "delete", **more: object) -> dict[str, Any]:
    return {"kind": kind, "instance": str(id_), **more}


def test_without_rules_everybody_may_do_everything() -> None:
    assert allowed(Permissions(), item(None, **claim()))
    assert allowed(Permissions(None), item(None, kind="node.remove"))


def test_with_rules_a_message_without_a_user_is_refused_even_where_everybody_may() -> None:
    everybody = rules({"users": ["*"]})
    assert allowed(everybody, item("anybody", **claim()))
    assert not allowed(everybody, item(None, **claim()))


@pytest.mark.parametrize(
    "command",
    [
        claim(),
        claim(candidates=["a2", "a3"]),
        on(OWN),
        on(OWN, "resize", resources=RESOURCES),
        on(OWN, "migrate", destination="a2", reason="cold"),
        on(OWN, "update", state="active"),
    ],
)
def test_who_is_kept_to_a_project_and_some_nodes_works_there(command: dict[str, Any]) -> None:
    assert allowed(BOBS, item(**command))


@pytest.mark.parametrize(
    "command",
    [
        claim("rival"),
        claim(node="b1"),
        claim(candidates=["a2", "b1"]),
        {
            "kind": "claim",
            "project": "acme",
            "instances": [
                {"instance": str(UNKNOWN), "node": node, "resources": RESOURCES, "revision": None} for node in ["a1"]
            ]
            + [{"instance": str(UUID(int=7)), "node": "b1", "resources": RESOURCES}],
        },
        claim(instance=str(OTHER)),
        on(OTHER),
        on(NEIGHBOUR),
        claim(instance=str(NEIGHBOUR)),
        on(OTHER, "confirm"),
        on(UNKNOWN),
        on(OWN, "resize", resources=RESOURCES, destination="b1"),
        on(OWN, "migrate", destination="b1", reason="cold"),
        {"kind": "node.put", "hypervisor": "test:///default"},
        {"kind": "node.remove", "force": True},
        {"kind": "audit"},
    ],
)
def test_nothing_beyond_the_own_nodes_and_project_is_let_through(command: dict[str, Any]) -> None:
    assert not allowed(BOBS, item(**command))
    assert not allowed(BOBS, item("stranger", **command))
    assert allowed(BOBS, item("root", **command))


def test_an_instance_that_holds_on_another_node_too_needs_leave_for_that_as_well() -> None:
    half = rules({"users": ["bob"], "nodes": ["a1"]})
    whole = rules({"users": ["bob"], "nodes": ["a1"]}, {"users": ["bob"], "nodes": ["b1"]})
    assert not allowed(half, item(**on(OTHER)))
    assert allowed(whole, item(**on(OTHER)))


def test_behind_parked_commands_an_unknown_instance_is_judged_when_its_turn_comes() -> None:
    assert allowed(BOBS, item(**on(UNKNOWN)), waiting=True)
    assert not allowed(BOBS, item(**on(UNKNOWN, node="b1")), waiting=True)
    assert not allowed(BOBS, item(**on(OTHER)), waiting=True)
    assert not allowed(BOBS, item(**on(UNKNOWN)))
    parked = item(**on(OTHER))
    parked.parked = Parked("a1", parked.command.id, b"", NO_REPLY, "bob", NOW, True, "")
    parked.delivery = None
    assert not allowed(BOBS, parked)


def test_a_replay_needs_leave_for_all_through_whose_hands_it_went() -> None:
    assert allowed(BOBS, item("root", senders="root", **on(OTHER)))
    assert not allowed(BOBS, item("root", senders="bob", **on(OTHER)))
    assert not allowed(BOBS, item("root", senders="", **on(OTHER)))
    assert not allowed(BOBS, item("root", senders=7, **on(OTHER)))
    assert not allowed(BOBS, item("bob", senders="root", **on(OTHER)))
    assert not allowed(BOBS, item("root", senders="\n".join(["root"] * 99), **on(OTHER)))
    assert not allowed(BOBS, item("root", senders="bob", **on(UNKNOWN)), waiting=True)


def test_a_dead_letter_names_everybody_whose_it_was() -> None:
    letter = letter_of(item("root", senders="mallory", **on(OTHER)), "poison", "")
    assert letter is not None
    assert letter.headers[SENDERS_HEADER] == "mallory\nroot"


def test_what_the_workers_make_themselves_needs_no_leave() -> None:
    own = item(**on(OTHER))
    own.delivery = None
    assert allowed(BOBS, own)


names = st.text("ab*.", min_size=1, max_size=3)
kinds = st.sampled_from(["*", "claim", "delete", "node.*"])
some_rules = st.lists(
    st.builds(
        lambda users, kind, nodes, projects: PermissionRule(users=users, kinds=(kind,), nodes=nodes, projects=projects),
        *(st.lists(names, min_size=1, max_size=2).map(tuple), kinds),
        *(st.lists(names, min_size=1, max_size=2).map(tuple),) * 2,
    ),
    max_size=4,
)
concerns = st.builds(
    Concern,
    st.sampled_from(["claim", "delete", "node.put"]),
    st.frozensets(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=2),
    st.frozensets(st.none() | st.text("ab.", min_size=1, max_size=3), max_size=2),
)


@given(before=some_rules, added=some_rules, user=st.text("ab.", max_size=3), concern=concerns)
def test_a_further_rule_never_forbids_what_was_allowed(
    before: list[PermissionRule], added: list[PermissionRule], user: str, concern: Concern
) -> None:
    if Permissions(before).allows(user, concern):
        assert Permissions([*before, *added]).allows(user, concern)
        assert Permissions([*added, *before]).allows(user, concern)


@given(rules_given=some_rules, user=st.text("ab.", max_size=3), concern=concerns)
def test_what_no_rule_matches_is_refused(rules_given: list[PermissionRule], user: str, concern: Concern) -> None:
    others = [
        rule
        for rule in rules_given
        if not Permissions([rule]).allows(user, Concern(concern.kind, concern.nodes, frozenset()))
    ]
    if len(concern.nodes) == 1:
        assert not Permissions(others).allows(user, concern)
    assert not Permissions([]).allows(user, concern)
    assert not Permissions(rules_given).allows("", concern)


def test_every_kind_of_command_says_what_it_touches() -> None:
    assert concern_of(item(kind="audit").command, {}) == Concern("audit", frozenset({"a1"}), frozenset({None}))
    assert concern_of(item(**on(OTHER)).command, INSTANCES).nodes == {"a1", "b1"}
    renames = item(kind="node.put", hypervisor="test:///default", replaces="b1").command
    assert concern_of(renames, {}) == Concern("node.put", frozenset({"a1", "b1"}), frozenset({None}))


def test_rules_are_read_from_toml_json_and_the_setting_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml, js = tmp_path / "rules.toml", tmp_path / "rules.json"
    toml.write_text('[[rules]]\nusers = ["bob"]\nkinds = ["claim", "node.*"]\n')
    text = '{"rules": [{"users": ["bob"], "kinds": ["claim", "node.*"]}]}'
    js.write_text(text)
    expected = (PermissionRule(users=("bob",), kinds=("claim", "node.*")),)
    assert read_rules(str(toml)) == read_rules(str(js)) == read_rules(text) == expected
    monkeypatch.setenv("NODELEDGER_PERMISSIONS", str(toml))
    assert load_settings().permissions == expected
    monkeypatch.delenv("NODELEDGER_PERMISSIONS")
    assert load_settings().permissions is None


@pytest.mark.parametrize(
    "wrong",
    [
        "{",
        '{"rules": []}',
        '{"rules": [{}]}',
        '{"rules": [{"users": []}]}',
        '{"rules": [{"users": ["bob"], "kinds": ["clam"]}]}',
        '{"rules": [{"users": ["bob"], "project": ["acme"]}]}',
        '{"rules": [{"users": ["bob"], "nodes": "a1"}]}',
        '{"rules": ' + "[" * 100_000,
        "/nowhere/rules.toml",
        "/dev/null",
    ],
)
def test_wrong_rules_keep_a_worker_from_starting(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RulesError):
        read_rules(wrong)
    monkeypatch.setenv("NODELEDGER_PERMISSIONS", wrong)
    with pytest.raises(SettingsError, match="NODELEDGER_PERMISSIONS: "):
        load_settings()


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_a_pattern_is_itself_with_anything_for_an_asterisk(pattern: str, text: str) -> None:
    parts = pattern.split("*")
    assert matcher(pattern).fullmatch(text.join(parts)) is not None
    if len(parts) == 1:
        assert (matcher(pattern).fullmatch(text) is not None) == (text == pattern)


@pytest.mark.parametrize(("pattern", "other"), [("a.b", "axb"), ("a+", "aa"), ("[ab]", "a"), ("a|b", "b"), ("a?", "a")])
def test_nothing_but_the_asterisk_is_special_in_a_pattern(pattern: str, other: str) -> None:
    assert matcher(pattern).fullmatch(other) is None
