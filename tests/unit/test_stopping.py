from __future__ import annotations

import asyncio

import pytest

from schemas.stopping import InnerCancelledError, ended, run_within


class Stubborn:
    """Work that loses so many cancellations on its way to an end, or all until it is let go."""

    def __init__(self, cancellations: int = 1_000_000) -> None:
        self.cancellations = cancellations

    async def work(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.cancellations:
                    raise
                self.cancellations -= 1

    def let_go(self) -> None:
        self.cancellations = 0


async def started(*tasks: asyncio.Task[None]) -> list[asyncio.Task[None]]:
    await asyncio.sleep(0)
    return list(tasks)


async def test_a_task_that_loses_a_cancellation_is_cancelled_until_it_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("schemas.stopping.AGAIN_SECONDS", 0.001)
    (task,) = await started(asyncio.create_task(Stubborn(3).work()))
    assert await ended([task], 20) == set()
    assert task.cancelled()


async def test_a_task_that_never_ends_is_given_back_in_time() -> None:
    stubborn = Stubborn()
    tasks = await started(asyncio.create_task(stubborn.work()), asyncio.create_task(Stubborn(0).work()))
    assert await ended(tasks, 0.01) == {tasks[0]}
    stubborn.let_go()


async def test_how_a_task_ended_does_not_matter_to_whoever_ends_it() -> None:
    async def fail() -> None:
        raise ValueError

    assert await ended(await started(asyncio.create_task(fail())), 20) == set()


async def test_work_has_its_time_and_no_longer_even_if_it_loses_its_cancellation() -> None:
    stubborn = Stubborn()
    with pytest.raises(TimeoutError):
        await run_within(stubborn.work(), 0.01)
    stubborn.let_go()


async def test_work_that_is_cancelled_from_inside_is_told_apart_from_a_waiter_that_is_cancelled() -> None:
    async def cancelled_inside() -> None:
        raise asyncio.CancelledError

    with pytest.raises(InnerCancelledError):
        await run_within(cancelled_inside(), 20)
    (waiter,) = await started(asyncio.create_task(run_within(Stubborn(0).work(), None)))
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_a_waiter_that_is_cancelled_as_its_work_is_done_is_cancelled() -> None:
    done = asyncio.get_running_loop().create_future()
    (waiter,) = await started(asyncio.create_task(run_within(done, 20)))
    done.set_result(None)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
