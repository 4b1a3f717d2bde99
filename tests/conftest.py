"""Fixtures for every test: see `tests.servers` for what they give."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from deploy.lib.stack import Stack
from tests.servers import Database, Vhost, new_database, new_vhost, stack_folder, start_stack

SHARED_FOLDER = "NODELEDGER_TEST_STACK"
"""Names the folder of the stack that the tests share: set by hand, it is used as it is and stays up."""

# How long an example takes, or is drawn, says more of the machine than of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_session = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose where the shared stack is to be, before xdist's workers inherit the environment."""
    if SHARED_FOLDER not in os.environ:
        config.stash[_session] = ExitStack()
        os.environ[SHARED_FOLDER] = str(config.stash[_session].enter_context(stack_folder()))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the shared stack, if this process chose its folder and a test started it."""
    if session := config.stash.get(_session, None):
        session.close()
        del os.environ[SHARED_FOLDER]


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The servers all tests share: do not stop them; tests/faults has a stack to break."""
    return start_stack(Path(os.environ[SHARED_FOLDER]))


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Database]:
    """A database of the test's own with the product's schema."""
    async with new_database(stack) as made:
        yield made


@pytest.fixture
async def empty_database(stack: Stack) -> AsyncIterator[Database]:
    """A database of the test's own without any schema."""
    async with new_database(stack, schema=False) as made:
        yield made


@pytest.fixture
def vhost(stack: Stack) -> Iterator[Vhost]:
    """A virtual host of the test's own, empty."""
    with new_vhost(stack) as made:
        yield made
