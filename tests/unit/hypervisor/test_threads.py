from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import Event

import pytest

from worker.hypervisor.breaker import Breaker
from worker.hypervisor.threads import DeadlinePassed, NoThread, Threads

LONG = 30.0


@asynccontextmanager
async def threads(limit: int, ceiling: int) -> AsyncIterator[tuple[Threads, Event]]:
    """Threads, and what the calls that hang wait for."""
    made, release = Threads(limit=limit, ceiling=ceiling), Event()
    try:
        yield made, release
    finally:
        release.set()
        made.close()


def hanging(release: Event) -> Callable[[], bool]:
    return lambda: release.wait(LONG)


async def give_up(pool: Threads, function: Callable[[], object], *, trusted: bool = True) -> None:
    call = pool.submit(function, trusted=trusted)
    with pytest.raises(DeadlinePassed):
        await pool.result(call, deadline_seconds=0.02)
    assert call.given_up


async def ask(pool: Threads, *, trusted: bool = True) -> str:
    return await pool.result(pool.submit(lambda: "answer", trusted=trusted), deadline_seconds=LONG)


async def test_a_call_answers_or_raises_what_it_raised() -> None:
    async with threads(2, 4) as (pool, _):
        assert await ask(pool) == "answer"
        with pytest.raises(ZeroDivisionError):
            await pool.result(pool.submit(lambda: 1 // 0, trusted=True), deadline_seconds=LONG)


async def test_calls_that_hang_make_room_for_others() -> None:
    async with threads(2, 100) as (pool, release):
        await asyncio.gather(*(give_up(pool, hanging(release)) for _ in range(20)))
        assert (pool.running, pool.given_up) == (20, 20)
        assert await asyncio.wait_for(ask(pool), LONG) == "answer"


async def test_what_failed_before_cannot_take_the_last_threads() -> None:
    async with threads(2, 6) as (pool, release):
        for _ in range(4):
            await give_up(pool, hanging(release), trusted=False)
        with pytest.raises(NoThread):
            await ask(pool, trusted=False)
        assert await ask(pool, trusted=True) == "answer"


async def test_threads_are_never_more_than_the_ceiling() -> None:
    async with threads(2, 6) as (pool, release):
        returned = asyncio.Semaphore(0)
        loop = asyncio.get_running_loop()

        def hang() -> None:
            release.wait(LONG)
            loop.call_soon_threadsafe(returned.release)

        for _ in range(6):
            await give_up(pool, hang)
        with pytest.raises(NoThread):
            await ask(pool)
        release.set()
        for _ in range(6):
            await returned.acquire()
        await asyncio.sleep(0)
        assert await ask(pool) == "answer"


async def test_a_call_that_found_no_thread_in_time_is_never_made() -> None:
    made: list[str] = []
    async with threads(1, 2) as (pool, release):
        first = pool.submit(hanging(release), trusted=True)
        second = pool.submit(lambda: made.append("late"), trusted=True)
        with pytest.raises(NoThread):
            await pool.result(second, deadline_seconds=0.01)
        release.set()
        await pool.result(first, deadline_seconds=LONG)
        assert await ask(pool) == "answer"
    assert made == []


async def test_a_caller_that_is_cancelled_leaves_its_call_occupying_its_thread() -> None:
    async with threads(1, 4) as (pool, release):
        call = pool.submit(hanging(release), trusted=True)
        waiting = asyncio.create_task(pool.result(call, deadline_seconds=LONG))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (call.given_up, pool.running) == (True, 1)


def test_a_process_ends_whatever_its_threads_wait_for() -> None:
    program = """
import asyncio, threading
from worker.hypervisor.threads import DeadlinePassed, Threads
async def main():
    threads = Threads(limit=1, ceiling=4)
    call = threads.submit(threading.Event().wait, trusted=True)
    try:
        await threads.result(call, deadline_seconds=0.01)
    except DeadlinePassed:
        threads.close()
        print("gave up")
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG, check=True)
    assert (ended.stdout, ended.stderr) == ("gave up\n", "")


def test_a_breaker_doubles_its_while_up_to_half_a_minute() -> None:
    breaker = Breaker()
    now = 0.0
    for failure in range(12):
        breaker.failed(now, "why")
        most = min(30.0, 2.0 ** (failure + 1))
        least = max(1.0, most / 2)
        assert breaker.is_open(now + least - 0.01)
        assert not breaker.is_open(now + most + 0.01)
        now += most
    breaker.succeeded()
    assert not breaker.is_open(now)
    assert breaker.failures == 0
