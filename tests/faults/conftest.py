"""A stack that a test may stop, restart or crash without disturbing any other test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.lib.stack import Stack
from tests.servers import start_stack, temporary_stack


@pytest.fixture(scope="session")
def _breakable_stack() -> Iterator[Stack]:
    with temporary_stack() as made:
        yield made


@pytest.fixture
def stack(_breakable_stack: Stack) -> Stack:
    """Both servers up, whatever the test before has done to them; `database` and `vhost` live here too."""
    return start_stack(_breakable_stack.folder)
