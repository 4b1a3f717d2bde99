from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from schemas import (
    Abort,
    Claim,
    Disk,
    NodePut,
    Outcome,
    Policy,
    Ratios,
    Reason,
    command_key,
    command_queue,
    outcome_key,
    parse_command,
    shard_of,
)
from schemas.examples import COMMANDS, OUTCOME
from tests.unit.schemas.bad_bodies import CLAIM, NODE_PUT, changed, encoded


def fingerprint(document: object) -> bytes:
    return parse_command(encoded(document)).fingerprint()


def test_a_fingerprint_is_the_content_and_nothing_else() -> None:
    assert fingerprint(COMMANDS["delete"]) == (
        b'{"version":1,"id":"0199c0de-0000-7000-8000-00000000000a","node":"cn-017",'
        b'"instance":"0199c0de-0000-7000-8000-0000000000aa","kind":"delete","verify":true}'
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("issued_at", "2026-11-22T07:05:00Z"),
        ("dry_run", False),
        ("expires_at", None),
        ("candidates", []),
        ("topology.thread_policy", None),
        ("resources.disk.ephemeral_gib", 0),
        ("devices.0.match.0.vendor", "10DE"),
        ("id", CLAIM["id"].upper()),
    ],
)
def test_saying_the_same_in_other_words_leaves_the_fingerprint(path: str, value: object) -> None:
    assert fingerprint(changed(CLAIM, path, value)) == fingerprint(CLAIM)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dry_run", True),
        ("expires_at", "2026-11-22T08:00:00Z"),
        ("node", "cn-018"),
        ("resources.vcpus", 5),
        ("resources.disk.boot_from_volume", True),
        ("devices.0.match.0.tags", {"a": "b"}),
        ("revision", 2),
    ],
)
def test_any_other_content_changes_the_fingerprint(path: str, value: object) -> None:
    assert fingerprint(changed(CLAIM, path, value)) != fingerprint(CLAIM)


def test_commands_cannot_be_changed_once_read() -> None:
    command = parse_command(encoded(CLAIM))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(command, "node", "cn-018")  # noqa: B010 - refused by mypy otherwise, as it should be


def test_a_claim_for_one_is_a_claim_of_one_member() -> None:
    claim = parse_command(encoded(CLAIM))
    assert isinstance(claim, Claim)
    (member,) = claim.members()
    assert (member.instance, member.node, member.revision) == (claim.instance, "cn-017", 1)
    assert (member.resources, member.topology, member.devices) == (claim.resources, claim.topology, claim.devices)


def test_a_claim_for_several_names_them_in_its_order() -> None:
    own: dict[str, Any] = {name: CLAIM[name] for name in ("version", "id", "kind", "node", "issued_at", "project")}
    members = [
        {"instance": str(UUID(int=number)), "node": node, "resources": {"vcpus": 1, "memory_mib": 512}}
        for number, node in enumerate(["cn-018", "cn-017"])
    ]
    claim = parse_command(encoded(own | {"instances": members}))
    assert isinstance(claim, Claim)
    assert [member.node for member in claim.members()] == ["cn-018", "cn-017"]


def test_local_disk_is_counted_in_mebibytes_and_a_volume_is_not_local() -> None:
    disk = Disk(root_gib=20, ephemeral_gib=1, swap_mib=512)
    assert disk.total_mib == 21 * 1024 + 512
    assert disk.model_copy(update={"boot_from_volume": True}).total_mib == 1024 + 512


def test_a_node_is_put_with_its_defaults() -> None:
    command = parse_command(encoded({**NODE_PUT, "policy": {}}))
    assert isinstance(command, NodePut)
    assert command.policy == Policy()
    assert command.policy.ratios == Ratios(vcpus=Decimal(4), memory=Decimal(1), disk=Decimal(1))
    assert command.policy.reserved.memory_mib == 512


def test_a_reason_may_run_over_several_lines() -> None:
    command = parse_command(encoded(COMMANDS["abort"] | {"reason": "Traceback:\n\tline 1"}))
    assert isinstance(command, Abort)
    assert command.reason == "Traceback:\n\tline 1"


def test_models_made_in_code_are_as_strict_as_messages() -> None:
    for wrong in ({"vcpus": 4.0}, {"vcpus": "4.0"}, {"vcpus": Decimal(0)}, {"vcpus": Decimal("NaN")}):
        with pytest.raises(ValidationError):
            Ratios.model_validate(wrong)


def test_an_outcome_is_read_as_it_was_written() -> None:
    outcome = Outcome(
        command=UUID(int=1), kind="claim", status="rejected", node="cn-017", at=datetime.now(UTC),
        reasons=[Reason(code="insufficient", detail="…", resource="vcpus", requested=8, short_by=4)],
    )  # fmt: skip
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome


def test_readers_of_outcomes_pass_over_what_a_later_release_adds() -> None:
    reasons = [{**OUTCOME["reasons"][0], "hint": "try cn-018"}]
    outcome = Outcome.model_validate_json(encoded({**OUTCOME, "reasons": reasons, "took_ms": 4}))
    assert outcome.reasons[0].short_by == 4
    assert outcome.at - datetime(2026, 11, 22, 7, tzinfo=UTC) == timedelta(milliseconds=4)


@pytest.mark.parametrize(
    ("node", "shard", "of_seven"), [("cn-017", 5, 2), ("compute-0.example.org", 6, 6), ("a", 3, 4)]
)
def test_the_shard_of_a_node_is_the_same_for_ever(node: str, shard: int, of_seven: int) -> None:
    assert (shard_of(node), shard_of(node, 7)) == (shard, of_seven)


def test_names_on_the_broker_are_those_of_the_contract() -> None:
    assert (command_key(7), command_queue(7)) == ("07", "nodeledger.commands.07")
    assert outcome_key("node.put", "applied", "cn.a-1.b") == "node.put.applied.cn-a-1-b"


def test_models_have_no_computed_fields() -> None:
    pending: list[type[BaseModel]] = [BaseModel]
    while pending:
        pending += (model := pending.pop()).__subclasses__()
        assert not model.__module__.startswith("schemas") or not model.model_computed_fields, model
