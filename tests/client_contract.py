"""What every ledger that takes commands keeps: one suite for the client on real servers and for the one in memory."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas import Inventory, Outcome, Policy, Topology
from schemas.asking import command_of, uuid7
from schemas.errors import NoAnswerError, RejectedError

INVENTORY = Inventory.model_validate({"cpus": "0-7", "memory_mib": 16384, "disk_gib": 100})
WITH_CELL = Inventory.model_validate(
    {
        "cpus": "0-7",
        "memory_mib": 16384,
        "disk_gib": 100,
        "cells": [{"id": 0, "cpus": "0-7", "memory_mib": 16384}],
    }
)
SILENT = "qemu+tls://127.0.0.1:1/system"
"""Allowed by default, and nobody listens there."""

SMALL: Any = {"project": "demo", "vcpus": 1, "memory_mib": 64}


def small(node: str, instance: UUID | None = None) -> Any:
    return command_of(
        "claim", node, instance=instance or uuid4(), project="demo", resources={"vcpus": 1, "memory_mib": 64}
    )


class ClientContract:
    """Subclasses' modules have a fixture ``ledger``: a client, or what stands for one, without any node."""

    async def test_a_claim_is_applied_and_tells_the_cpus(self, ledger: Any) -> None:
        put = await ledger.node_put("cn-1", inventory=WITH_CELL, policy=Policy(dedicated_cpus="4-7", shared_cpus="0-3"))
        assert put.status == "applied"
        pinned = Topology(cpu_policy="dedicated", cells=1)
        got = await ledger.claim("cn-1", uuid4(), project="demo", vcpus=2, memory_mib=64, topology=pinned)
        assert got.status == "applied"
        assert sorted(got.assignment.cells[0].pins.values()) == [4, 5]
        assert got.usage["memory_mib"].used == 64

    async def test_every_kind_has_its_method(self, ledger: Any) -> None:
        one, other, lost = uuid4(), uuid4(), uuid4()
        await ledger.node_put("cn-1", inventory=INVENTORY)
        await ledger.node_put("cn-2", inventory=INVENTORY, labels={"rack": "b"})
        answers = [
            await ledger.claim("cn-1", one, **SMALL),
            await ledger.resize("cn-1", one, vcpus=2, memory_mib=128),
            await ledger.confirm("cn-1", one),
            await ledger.migrate("cn-1", one, destination="cn-2", reason="cold"),
            await ledger.revert("cn-1", one),
            await ledger.update("cn-1", one, state="active"),
            await ledger.claim("cn-2", other, candidates=["cn-1"], **SMALL),
            await ledger.abort("cn-2", other, reason="no image"),
            await ledger.delete("cn-1", one),
            await ledger.claim("cn-2", lost, **SMALL),
            await ledger.node_remove("cn-2", force=True),
        ]
        assert [answer.status for answer in answers] == ["applied"] * len(answers)
        assert (await ledger.audit("cn-1")).reasons[0].code == "invalid_request"

    async def test_a_refusal_is_an_outcome_or_an_error_with_every_reason(self, ledger: Any) -> None:
        await ledger.node_put("cn-1", inventory=INVENTORY)
        huge: Any = {"project": "demo", "vcpus": 99, "memory_mib": 1_000_000}
        refused = await ledger.claim("cn-1", uuid4(), **huge)
        assert [reason.resource for reason in refused.reasons] == ["vcpus", "memory_mib"]
        with pytest.raises(RejectedError, match="rejected") as caught:
            await ledger.claim("cn-1", uuid4(), raising=True, **huge)
        assert caught.value.outcome.reasons == refused.reasons

    async def test_the_same_command_again_is_the_same_outcome_and_one_effect(self, ledger: Any) -> None:
        await ledger.node_put("cn-1", inventory=INVENTORY)
        command = small("cn-1")
        first = await ledger.send(command)
        assert await ledger.send(command) == first
        assert (await ledger.claim("cn-1", uuid4(), **SMALL)).usage["vcpus"].used == 2

    async def test_an_id_used_for_something_else_is_dead(self, ledger: Any) -> None:
        await ledger.node_put("cn-1", inventory=INVENTORY)
        id_ = uuid7()
        await ledger.claim("cn-1", uuid4(), id=id_, **SMALL)
        again = await ledger.claim("cn-1", uuid4(), id=id_, **SMALL)
        assert (again.status, again.dead_letter.reason) == ("dead", "id_reuse")

    async def test_a_dry_run_changes_nothing(self, ledger: Any) -> None:
        await ledger.node_put("cn-1", inventory=INVENTORY)
        told = await ledger.claim("cn-1", uuid4(), dry_run=True, **SMALL)
        assert (told.status, told.dry_run) == ("applied", True)
        assert (await ledger.claim("cn-1", uuid4(), **SMALL)).usage["vcpus"].used == 1

    async def test_many_keep_the_order_of_each_node_and_each_is_answered_once(self, ledger: Any) -> None:
        nodes = [f"cn-{number}" for number in range(4)]
        for node in nodes:
            await ledger.node_put(node, inventory=INVENTORY)
        instances = {node: uuid4() for node in nodes}
        commands = [small(node, instances[node]) for node in nodes]
        for _ in range(10):
            for node in nodes:
                commands.append(command_of("delete", node, instance=instances[node]))
                instances[node] = uuid4()
                commands.append(small(node, instances[node]))
        outcomes = [outcome async for outcome in ledger.send_many(commands, window=16)]
        assert {outcome.status for outcome in outcomes} == {"applied"}
        assert sorted(outcome.command for outcome in outcomes) == sorted(command.id for command in commands)
        place = {command.id: number for number, command in enumerate(commands)}
        for node in nodes:
            told = [outcome for outcome in outcomes if outcome.node == node]
            by_generation = sorted(told, key=lambda outcome: outcome.generation)
            assert [place[one.command] for one in by_generation] == sorted(place[one.command] for one in told)

    async def test_what_is_parked_is_told_and_is_no_answer(self, ledger: Any) -> None:
        assert (await ledger.node_put("cn-9", hypervisor=SILENT)).status == "applied"
        told: list[Outcome] = []
        with pytest.raises(NoAnswerError) as caught:
            await ledger.claim("cn-9", uuid4(), seconds=3, on_parked=told.append, **SMALL)
        assert [outcome.status for outcome in told] == ["parked"]
        assert list(caught.value.parked) == told

    async def test_what_is_parked_holds_up_no_others_of_many_and_is_named_at_the_end(self, ledger: Any) -> None:
        await ledger.node_put("cn-1", inventory=INVENTORY)
        assert (await ledger.node_put("cn-9", hypervisor=SILENT)).status == "applied"
        stuck = [small("cn-9") for _ in range(3)]
        fine = [small("cn-1") for _ in range(5)]
        outcomes = []

        async def take() -> None:
            async for outcome in ledger.send_many([*stuck, *fine], window=2, seconds=5):
                outcomes.append(outcome.command)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(NoAnswerError) as caught:
            await take()
        assert sorted(outcomes) == sorted(command.id for command in fine)
        assert sorted(caught.value.commands) == sorted(command.id for command in stuck)

    async def test_what_is_parked_is_answered_once_its_node_may_go_on(self, ledger: Any) -> None:
        assert (await ledger.node_put("cn-9", hypervisor=SILENT)).status == "applied"
        parked = asyncio.Event()
        waiting = asyncio.ensure_future(
            ledger.claim("cn-9", uuid4(), seconds=90, on_parked=lambda _: parked.set(), **SMALL)
        )
        async with asyncio.timeout(60):
            await parked.wait()
        await ledger.node_put("cn-9", inventory=INVENTORY)
        await self.go_on(ledger)
        assert (await waiting).status == "applied"

    async def test_outcomes_stay_in_their_queue_until_they_are_acknowledged(self, ledger: Any) -> None:
        async with ledger.outcomes("team.claims", kinds=["claim"], statuses=["applied"]):
            pass
        await ledger.node_put("cn-1", inventory=INVENTORY)
        claimed = [(await ledger.claim("cn-1", uuid4(), **SMALL)).command for _ in range(3)]
        async with ledger.outcomes("team.claims", kinds=["claim"], statuses=["applied"]) as stream:
            read = await anext(stream)
            assert read.outcome.command == claimed[0]
            await read.acknowledge()
            assert (await anext(stream)).outcome.command == claimed[1]
        async with ledger.outcomes("team.claims", kinds=["claim"], statuses=["applied"]) as stream:
            assert [(await anext(stream)).outcome.command for _ in range(2)] == claimed[1:]

    async def go_on(self, ledger: Any) -> None:
        """Have what is parked decided anew; a worker does so by itself."""
