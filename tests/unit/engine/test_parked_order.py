from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from schemas import Policy
from tests.unit.engine.doubles import audit
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Facts, Node, Observation, View
from worker.engine.batch import Decider
from worker.engine.intake import Item, unpark
from worker.engine.lanes import Lanes
from worker.engine.ports import NO_REPLY, Known, Parked, ReadSet
from worker.engine.result import Result

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE = str(uuid4())
RESOURCES = {"vcpus": 1, "memory_mib": 512}


def parked(kind: str, seq: int, **fields: Any) -> Item:
    id = uuid4()
    head = {"version": 1, "id": str(id), "kind": kind, "node": "cn-1", "issued_at": NOW.isoformat()}
    body = json.dumps({**head, "instance": INSTANCE, **fields}).encode()
    return unpark(Parked("cn-1", id, body, NO_REPLY, None, NOW, blocking=True, detail="", seq=seq, parked_at=NOW))


def decided(items: list[Item]) -> Result:
    node = Node("cn-1", Policy(), Occupancy(), hypervisor="test:///default", id=1, parked=len(items))
    known = {item.command.id: Known(item.fingerprint, "parked", item.command.kind, "cn-1", "{}") for item in items}
    silent = Facts({"cn-1": Observation(NOW, "test:///default", None, "it does not answer")})
    loaded = ReadSet(View({"cn-1": node}), known, NOW)
    return Decider(loaded, silent, 0.0, timedelta(days=1), lambda _uri: None).run(items)


async def test_behind_a_command_that_stays_parked_nothing_parked_goes_on() -> None:
    claim = parked("claim", 1, project="acme", resources=RESOURCES)
    delete = parked("delete", 2, verify=False)
    result = decided([claim, delete])
    assert not result.changes.answers, "the delete needs no hypervisor, and would have overtaken the claim"
    assert result.done == [claim, delete]
    assert result.stuck == {"cn-1"}


async def test_what_is_brought_back_stays_behind_one_that_stays_parked_in_later_batches_too() -> None:
    lanes = Lanes()
    items = [parked("delete", seq, verify=False) for seq in range(20)]
    lanes.bring_back("cn-1", items, Facts())
    batch = await lanes.take(8)
    assert batch is not None
    assert batch.items == items[:8]
    lanes.done(batch, stuck={"cn-1"})
    assert lanes.depth == 0


async def test_what_is_brought_back_twice_waits_once() -> None:
    lanes = Lanes()
    for _ in range(3):
        lanes.bring_back("cn-1", [parked("delete", seq, verify=False) for seq in range(5)], Facts())
    assert lanes.depth == 5


async def test_a_command_whose_letter_is_dead_lettered_is_not_forgotten_with_the_parked() -> None:
    lanes = Lanes()
    dead_lettered = parked("delete", 1)
    dead_lettered.dead_lettered = ("hypervisor_timeout", "")
    lanes.put_first("cn-1", [dead_lettered])
    lanes.bring_back("cn-1", [parked("delete", 2)], Facts())
    batch = await lanes.take(8)
    assert batch is not None
    assert dead_lettered in batch.items


async def test_an_audit_waits_behind_nothing_and_is_never_parked() -> None:
    asked = audit("cn-1")
    node = Node("cn-1", Policy(), Occupancy(), hypervisor="test:///default", id=1, parked=1)
    loaded = ReadSet(View({"cn-1": node}), {}, NOW)
    silent = Facts(listings={"cn-1": None})
    result = Decider(loaded, silent, 0.0, timedelta(days=1), lambda _uri: None).run([asked])
    assert result.changes.parked == []
    assert [(answer.status, answer.codes) for answer in result.changes.answers] == [
        ("rejected", ("hypervisor_unreachable",))
    ]
