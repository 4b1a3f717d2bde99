from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from deploy.lib.stack import Stack
from tests.model.machine import LedgerMachine
from tests.model.profiles import TIMEOUT_SECONDS, play
from tests.model.whole import Installation, WholePath
from tests.servers import Vhost

pytestmark = pytest.mark.integration


class WorkerMachine(LedgerMachine):
    site: ClassVar[Installation]

    def new_path(self) -> WholePath:
        return WholePath(self.site)


@pytest.fixture
def site(stack: Stack, vhost: Vhost, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(stack, vhost, tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_whole_workers_do_what_the_model_says_though_they_are_killed(site: Installation) -> None:
    WorkerMachine.site = site
    play(WorkerMachine, runs=16, steps=25, long_steps=5_000, repeatable=False)
