from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from schemas import MalformedCommandError, parse_command
from schemas.asking import command_of, uuid7
from schemas.client import Message
from schemas.client.link import addresses
from schemas.client.outcomes import routing_keys


def test_the_broker_is_where_it_is_said_or_where_the_environment_says(tmp_path: Path) -> None:
    two = "amqp://a/v, amqp://b/v"
    assert addresses(two) == addresses(["amqp://a/v", "amqp://b/v"]) == ("amqp://a/v", "amqp://b/v")
    assert addresses(None, {"NODELEDGER_AMQP_URL": "amqp://u:p,q@a/"}) == ("amqp://u:p,q@a/",)
    secret = tmp_path / "url"
    secret.write_text("amqps://a/\n")
    assert addresses(None, {"NODELEDGER_AMQP_URL_FILE": str(secret)}) == ("amqps://a/",)
    with pytest.raises(ValueError, match="NODELEDGER_AMQP_URL"):
        addresses(None, {})


def test_outcomes_are_chosen_by_kind_status_and_node() -> None:
    assert routing_keys([], [], []) == ["#"]
    assert routing_keys(["node.put"], [], ["cn.1"]) == ["node.put.*.cn-1"]
    assert routing_keys([], ["applied", "rejected"], []) == ["#.applied.*", "#.rejected.*"]


def test_a_message_is_the_command_without_its_defaults_and_means_the_same() -> None:
    command = command_of("claim", "cn-1", instance=uuid4(), project="demo", resources={"vcpus": 1, "memory_mib": 1})
    message = Message.of(command)
    assert parse_command(message.body) == command
    assert b"dry_run" not in message.body
    assert (message.id, message.node, message.kind) == (command.id, "cn-1", "claim")


def test_a_command_that_is_none_is_refused_before_it_is_sent_by_the_name_of_its_field() -> None:
    with pytest.raises(MalformedCommandError, match="project: is missing"):
        command_of("claim", "cn-1", instance=uuid4())


def test_ids_are_of_version_7_and_rise() -> None:
    made = [uuid7() for _ in range(100)]
    assert {id_.version for id_ in made} == {7}
    assert [id_.int >> 76 for id_ in made] == sorted(id_.int >> 76 for id_ in made)
