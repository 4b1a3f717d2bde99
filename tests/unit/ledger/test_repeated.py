from __future__ import annotations

import asyncpg
import pytest

from worker.ledger.errors import repeated


class Work:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.runs = 0

    async def run(self) -> int:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.runs


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError, asyncpg.SerializationError])
async def test_what_postgres_ended_for_the_sake_of_others_is_run_again(error: type[Exception]) -> None:
    assert await repeated(Work(error(), error()).run) == 3


async def test_what_is_ended_each_time_is_told_as_what_it_is() -> None:
    work = Work(*(asyncpg.DeadlockDetectedError() for _ in range(100)))
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await repeated(work.run)
    assert work.runs == 5


async def test_what_a_lost_connection_leaves_in_doubt_is_not_run_again_here() -> None:
    work = Work(asyncpg.ConnectionDoesNotExistError())
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await repeated(work.run)
    assert work.runs == 1
