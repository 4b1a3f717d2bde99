from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import asyncpg
import pytest

from schemas import COMMAND_EXCHANGE, command_key, shard_of
from tests.integration.cli_harness import INSTANCES, Shell, as_lines, claim, put, shell, worker
from tests.published import published
from tests.servers import Database, Vhost
from worker.engine.ports import DeadLetter
from worker.ledger.dead_letters import LetterFilter, actions, select, store
from worker.ledger.statements import statement

pytestmark = pytest.mark.integration


async def publish_astray(vhost: Vhost, *commands: dict[str, Any], **properties: Any) -> None:
    """Publish commands to a shard that is not their nodes'."""
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        exchange = await (await connection.channel()).get_exchange(COMMAND_EXCHANGE)
        for command in commands:
            key = command_key((shard_of(command["node"]) + 1) % 16)
            await exchange.publish(aio_pika.Message(json.dumps(command).encode(), **properties), key)


def stamped(command: dict[str, Any]) -> dict[str, Any]:
    """The command with what ``send`` would fill in."""
    return {"version": 1, "id": str(uuid4()), "issued_at": "2026-01-01T00:00:00Z", **command}


async def letters(operator: Shell, count: int, *options: str) -> list[dict[str, Any]]:
    """The dead letters, once there are so many; the archive follows the queue a moment later."""
    connection = await asyncpg.connect(operator.environment["NODELEDGER_DATABASE_URL"])
    async with asyncio.timeout(30):
        archived = 0
        while archived < count:
            await asyncio.sleep(0.02)
            archived = await connection.fetchval("SELECT count(*) FROM nodeledger.dead_letter")
    await connection.close()
    found: list[dict[str, Any]] = (await operator.run("dead", "list", "--json", *options)).document
    assert len(found) == count
    return found


@pytest.fixture
async def operator(database: Database, vhost: Vhost, tmp_path: Path) -> AsyncIterator[Shell]:
    made = shell(database, vhost)
    async with worker(made, tmp_path):
        assert (await made.send(put("cn-1"))).status == 0
        yield made


async def test_a_misrouted_command_is_replayed_to_its_own_shard_once(operator: Shell, vhost: Vhost) -> None:
    await publish_astray(vhost, stamped(claim("cn-1", INSTANCES[0])), stamped(claim("cn-1", INSTANCES[1])))
    found = await letters(operator, 2)
    assert {letter["reason"] for letter in found} == {"misrouted"}

    previewed = await operator.run("dead", "replay", "--all", "--dry-run", "--json")
    assert [one["verdict"] for one in previewed.document] == ["try", "try"]
    assert len(await letters(operator, 2)) == 2, "a dry run changes nothing"

    for options, count in (["--node", "cn-1"], 1), (["--kind", "resize"], 0), (["--group", str(found[0]["id"])], 1):
        assert len((await operator.run("dead", "list", "--groups", *options, "--json")).document) == count

    told = await operator.run("dead", "discard", "--all", "--dry-run", "--json")
    assert [one["id"] for one in told.document] == [one["id"] for one in found]
    assert (await operator.run("dead", "discard", "--all", "--json")).document == {"discarded": 2}
    skipped = await operator.run("dead", "replay", str(found[0]["id"]))
    assert (skipped.status, "dead reopen" in skipped.err) == (1, True), skipped.err
    assert (await operator.run("dead", "reopen", "--all", "--json")).document == {"reopened": 2}

    replayed = await operator.run("dead", "replay", "--reason", "misrouted", "--rate", "50", "--actor", "ann")
    assert (replayed.status, "2 replayed" in replayed.err) == (0, True), replayed.err
    again = await operator.run("dead", "replay", "--all")
    assert (again.status, "0 replayed" in again.err) == (0, True)

    final = await operator.send(claim("cn-1", INSTANCES[2]))
    assert final.lines[0]["usage"]["vcpus"]["used"] == 6, "both were applied, each once and before what came later"
    shown = (await operator.run("dead", "show", str(found[0]["id"]), "--json")).document
    assert ("ann", "replayed") in {(action["actor"], action["action"]) for action in shown["actions"]}


@pytest.mark.parametrize("sent_again", [("replay", "--all"), ("edit", "1", "--set", "resources.vcpus=1")])
async def test_what_is_sent_again_answers_who_sent_it_first(
    operator: Shell, vhost: Vhost, sent_again: tuple[str, ...]
) -> None:
    async with await aio_pika.connect(vhost.url) as connection:
        answers = await (await connection.channel()).declare_queue(exclusive=True)
        await publish_astray(
            vhost, stamped(claim("cn-1", INSTANCES[0])), reply_to=answers.name, correlation_id="the third of May"
        )
        await letters(operator, 1)
        assert (await operator.run("dead", *sent_again)).status == 0
        heard = []
        async with answers.iterator(no_ack=True, timeout=30) as messages:
            async for message in messages:
                assert message.correlation_id == "the third of May"
                heard.append(published(message.body)["status"])
                if len(heard) == 2:
                    break
    assert heard == ["dead", "applied"]


async def test_what_is_applied_already_is_previewed_as_a_duplicate(operator: Shell, vhost: Vhost) -> None:
    command = stamped(claim("cn-1", INSTANCES[0]))
    await operator.send(command)
    await publish_astray(vhost, command)
    await letters(operator, 1)
    previewed = (await operator.run("dead", "replay", "--all", "--dry-run", "--json")).document
    assert [one["verdict"] for one in previewed] == ["duplicate"]
    assert (await operator.run("dead", "replay", "--all")).status == 0
    after = await operator.send(claim("cn-1", INSTANCES[1]))
    assert after.lines[0]["usage"]["vcpus"]["used"] == 4


async def test_an_id_that_stands_for_another_content_is_left(operator: Shell) -> None:
    command = stamped(claim("cn-1", INSTANCES[0]))
    await operator.send(command)
    other = {**command, "instance": INSTANCES[1]}
    reused = await operator.run("send", "--wait", "--timeout", "5", text=as_lines([other]))
    assert (reused.status, reused.out) == (1, "")
    assert f"{command['id']} on cn-1 is in the dead letters (id_reuse)" in reused.err
    await letters(operator, 1)
    previewed = (await operator.run("dead", "replay", "--all", "--dry-run", "--json")).document
    assert [(one["reason"], one["verdict"]) for one in previewed] == [("id_reuse", "unfit")]


async def test_what_would_only_come_back_is_left_and_can_be_discarded(operator: Shell) -> None:
    bad = '{"node": "cn-1", "kind": "conjure", "text": "\\u001b[31m"}\n{"node": "cn-1", "kind": "claim"}\n'
    assert (await operator.run("send", "--raw", text=bad)).status == 0
    found = await letters(operator, 2)
    one = str(found[0]["id"])
    replayed = await operator.run("dead", "replay", one)
    assert (replayed.status, "left where it is" in replayed.err) == (1, True)
    shown = await operator.run("dead", "show", one)
    assert shown.out.replace("\n", "").isprintable()

    groups = (await operator.run("dead", "list", "--groups", "--json")).document
    assert sorted(group["reason"] for group in groups) == ["malformed", "unknown_kind"]
    assert (await operator.run("dead", "discard", "--group", one, "--json")).document == {"discarded": 1}
    assert [letter["id"] for letter in await letters(operator, 1)] == [found[1]["id"]]
    assert len(await letters(operator, 2, "--settled")) == 2


async def test_a_letter_that_came_back_before_its_replay_was_written_down_stays_open(database: Database) -> None:
    connection = await asyncpg.connect(database.worker_url)
    for _ in range(2):
        await store(connection, [DeadLetter(b"{}", "poison", "it burst")])
    known = (await select(connection, LetterFilter()))[0]
    assert known.attempts == 2
    for attempts, state in ((1, "open"), (2, "replayed")):
        await connection.execute(statement("dead_letter_replayed"), [known.id], [attempts], "ann")
        assert (await select(connection, LetterFilter()))[0].state == state
    assert len(await actions(connection, known.id)) == 2, "both were sent, and that is on record"
    await connection.close()


async def test_a_command_line_that_names_no_letter_is_refused(database: Database) -> None:
    for command in ("replay", "discard"):
        ended = await shell(database).run("dead", command)
        assert (ended.status, "--all" in ended.err) == (2, True)
    assert (await shell(database).run("dead", "discard", "4711")).status == 1
    assert (await shell(database).run("dead", "show", "4711")).status == 1
