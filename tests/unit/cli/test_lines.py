from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from worker.cli.common.lines import batches, open_input
from worker.errors import UsageError


async def test_every_line_of_a_file_comes_once_with_its_number_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = [b"x" * (number % 700) for number in range(5000)]
    path.write_bytes(b"\n".join(lines) + b"\nlast")
    found = [item async for batch in batches(open_input(str(path))) for item in batch]
    assert found == [(at, line) for at, line in enumerate([*lines, b"last"], start=1) if line]


async def test_a_line_of_a_slow_pipe_is_not_held_back_for_the_next_one() -> None:
    reader, writer = os.pipe()
    arriving = batches(reader)
    async with asyncio.timeout(10):
        for number in range(1, 4):
            os.write(writer, b"{}\n")
            assert await anext(arriving) == [(number, b"{}")]
        os.close(writer)
        with pytest.raises(StopAsyncIteration):
            await anext(arriving)


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        open_input(str(tmp_path / "absent"))
