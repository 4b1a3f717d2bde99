from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from schemas import Claim, Command, Delete, parse_command, shard_of
from worker.bench.loads import Load, churn, claims, mix, pinned
from worker.bench.loop import answer_around
from worker.bench.rig import command_of
from worker.bench.scenarios import SCENARIOS

SHARDS = 16


def parsed(load: Load, count: int) -> list[Command]:
    return [parse_command(command.body) for command in load.commands(load.names("bench", SHARDS), count)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_everything_sent_is_a_command_of_the_contract(scenario: object) -> None:
    load = next(each.load for each in SCENARIOS if each is scenario)
    names = load.names("bench", SHARDS)[:2]
    for command in [*load.puts(names), *load.filling(names)[:2], *load.commands(names, 8)]:
        assert str(parse_command(command.body).id) == command.id
        assert parse_command(command.body).node == command.node


def test_claims_are_spread_evenly() -> None:
    counts = Counter(command.node for command in parsed(Load(100, claims), 1000))
    assert set(counts.values()) == {10}


def test_the_mix_takes_each_instance_through_its_life_in_order() -> None:
    lives: dict[object, list[str]] = {}
    for command in parsed(Load(10, mix), 80):
        lives.setdefault(getattr(command, "instance", None), []).append(command.kind)
    assert list(lives.values()) == [["claim", "resize", "confirm", "delete"]] * 20


def test_churn_leaves_a_node_as_full_as_it_was() -> None:
    commands = parsed(Load(1, churn), 20)
    for claim, delete in list(pairwise(commands))[::2]:
        assert isinstance(claim, Claim)
        assert isinstance(delete, Delete)
        assert claim.instance == delete.instance


def test_no_more_is_sent_than_the_nodes_have_room_for() -> None:
    assert len(parsed(Load(2, pinned, per_node=3), 100)) == 6


def test_a_load_on_few_shards_uses_each_of_them() -> None:
    names = Load(50, claims, shards=3).names("bench", SHARDS)
    assert {shard_of(name, SHARDS) for name in names} == {0, 1, 2}
    assert len(set(names)) == 50


@pytest.mark.parametrize("size", [100, 480, 5000])
def test_the_bare_loop_answers_with_as_many_bytes_as_the_worker(size: int) -> None:
    head, tail = answer_around(size)
    id_ = "0199c0de-0000-7000-8000-000000000001"
    answer = head + id_.encode() + tail
    assert len(answer) == size
    assert command_of(answer) == id_
