from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.servers import Database
from worker.engine.ports import SENDERS_HEADER, DeadLetter, Whole
from worker.ledger.dead_letters import LetterFilter, actions, find, groups, mark, resolve, select, store, walk
from worker.ledger.pool import connect_pool
from worker.ledger.statements import Connection

pytestmark = pytest.mark.integration

EVERY = LetterFilter(states=None)


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    made = await connect_pool(database.worker_url, max_size=4)
    yield made
    await made.close()


@pytest.fixture
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    async with pool.acquire() as lent:
        yield lent


def letter(
    body: bytes,
    reason: str = "poison",
    detail: str = "KeyError: 'x'",
    *,
    command: UUID | None = None,
    node: str | None = None,
) -> DeadLetter:
    return DeadLetter(body, reason, detail, command, node)


async def test_a_letter_is_kept_once_with_its_raw_bytes_and_counted(connection: Connection) -> None:
    body = b"\x00\xff not JSON"
    await store(connection, [letter(body), letter(body), letter(body, "malformed")])
    await store(connection, [letter(body, detail="again")])
    letters = await select(connection, EVERY, bodies=True)
    assert [(kept.reason, kept.attempts, kept.body) for kept in letters] == [
        ("poison", 3, body),
        ("malformed", 1, body),
    ]
    assert letters[0].detail == "again"


async def test_nothing_a_sender_writes_can_keep_a_letter_out(connection: Connection) -> None:
    hostile = "\0\ud800" + "x" * 100_000
    await store(
        connection,
        [
            DeadLetter(
                b"",
                hostile,
                hostile,
                None,
                hostile,
                hostile,
                {hostile: [{"a": {hostile: b"\0\xff"}}, float("nan"), 2**80]},
            )
        ],
    )
    kept = await find(connection, (await select(connection, EVERY))[0].id)
    assert kept is not None
    assert "\0" not in kept.detail
    assert kept.headers


async def test_archivers_at_work_together_lose_no_letter(pool: asyncpg.Pool) -> None:
    async def archive(order: int) -> None:
        letters = [letter(str(number).encode()) for number in range(50)]
        async with pool.acquire() as connection:
            await store(connection, letters[::order])

    await asyncio.gather(*(archive(1) for _ in range(4)))
    kept = [one async for one in walk(pool, EVERY)]
    assert [one.attempts for one in kept] == [4] * 50


async def test_letters_are_grouped_by_cause(connection: Connection) -> None:
    await store(
        connection,
        [
            letter(b"%d" % number, "malformed", f"field 'a{number}' is {number}", node=f"cn-{number % 2}")
            for number in range(5)
        ]
        + [letter(b"x")],
    )
    found = await groups(connection, LetterFilter())
    assert [(group.reason, group.letters, group.nodes) for group in found] == [("malformed", 5, 2), ("poison", 1, 0)]
    of_group = LetterFilter(group=found[0].fingerprint)
    assert len(await select(connection, of_group)) == 5


async def test_every_action_is_recorded_with_who_did_it(connection: Connection) -> None:
    await store(connection, [letter(b"a"), letter(b"b"), letter(b"c")])
    ids = [kept.id for kept in await select(connection, EVERY)]
    assert await mark(connection, ids[:2], "replayed", actor="ann") == 2
    assert await mark(connection, ids, "discarded", actor="bob", detail="known fault") == 3
    assert await mark(connection, ids, "discarded", actor="eve") == 0
    done = await actions(connection, ids[0])
    assert [(action.actor, action.action, action.detail) for action in done] == [
        ("ann", "replayed", None),
        ("bob", "discarded", "known fault"),
    ]


async def test_a_letter_that_comes_again_is_open_again(connection: Connection) -> None:
    await store(connection, [letter(b"a")])
    kept = (await select(connection, EVERY))[0]
    await mark(connection, [kept.id], "replayed", actor="ann")
    await store(connection, [letter(b"a")])
    assert (await select(connection, EVERY))[0].state == "open"


async def test_letters_walk_in_the_order_they_came_however_many(pool: asyncpg.Pool) -> None:
    bodies = [b"%d" % number for number in range(1203)]
    async with pool.acquire() as connection:
        await store(connection, [letter(body, node="cn-1") for body in bodies])
        await store(connection, [letter(b"other")])
    assert [one.body async for one in walk(pool, LetterFilter(node="cn-1"), bodies=True)] == bodies


async def test_a_letter_resolves_itself_once_its_command_is_answered(connection: Connection) -> None:
    answered, waiting, reused = uuid4(), uuid4(), uuid4()
    await connection.executemany(
        "INSERT INTO nodeledger.command (id, fingerprint, kind, status, node, received_at, at, outcome)"
        " VALUES ($1, $1, 'claim', $2, 'cn-1', now(), now(), '{}')",
        [(answered, "applied"), (waiting, "dead"), (reused, "applied")],
    )
    await store(
        connection,
        [letter(b"a", command=answered), letter(b"b", command=waiting), letter(b"c", "id_reuse", command=reused)],
    )
    assert await resolve(connection) == 1
    assert [kept.state for kept in await select(connection, EVERY)] == ["resolved", "open", "open"]


async def test_letters_of_which_only_the_head_is_kept_are_told_apart_by_their_whole_bodies(
    connection: Connection,
) -> None:
    wholes = [Whole.of(b"x" * size) for size in (2_000_000, 3_000_000)]
    await store(connection, [DeadLetter(b"x", "too_large", "", whole=whole) for whole in wholes * 2])
    letters = await select(connection, EVERY, bodies=True)
    assert [(letter.attempts, letter.body) for letter in letters] == [(2, b"x"), (2, b"x")]
    assert [letter.headers for letter in letters] == [
        {"x-nodeledger-size": whole.size, "x-nodeledger-digest": str(whole.digest)} for whole in wholes
    ]


def sent(by: str, reply_to: str) -> DeadLetter:
    return DeadLetter(b"{}", "poison", "x", None, None, None, {SENDERS_HEADER: by, "x-nodeledger-reply-to": reply_to})


@pytest.mark.parametrize("together", [True, False])
async def test_the_same_bytes_of_another_user_leave_a_letter_its_senders_and_its_reply(
    connection: Connection, *, together: bool
) -> None:
    arrivals = [
        sent("root\nbob", "bobs"),  # forged by bob: the broker vouches for the last alone
        sent("root", "roots"),
        sent("bob", "bobs"),
        sent("root\nbob", "bobs"),
    ]
    for some in [arrivals] if together else [[one] for one in arrivals]:
        await store(connection, some)
    kept = [(one.headers or {}, one.attempts) for one in await select(connection, EVERY, bodies=True)]
    told = sorted((str(h[SENDERS_HEADER]), str(h["x-nodeledger-reply-to"]), count) for h, count in kept)
    assert told == [("bob", "bobs", 1), ("root", "roots", 3)]
