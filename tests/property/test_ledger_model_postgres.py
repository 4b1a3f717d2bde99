from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import ClassVar

import pytest

from deploy.lib.stack import Stack
from tests.model.machine import PARK_DEADLINE, LedgerMachine
from tests.model.postgres import PostgresModelLedger, Server
from tests.model.profiles import TIMEOUT_SECONDS, play

pytestmark = pytest.mark.integration


class PostgresMachine(LedgerMachine):
    server: ClassVar[Server]
    eager = False
    ledger: PostgresModelLedger

    def new_ledger(self) -> PostgresModelLedger:
        self.ledger = PostgresModelLedger(self.server, PARK_DEADLINE)
        return self.ledger

    def teardown(self) -> None:
        """In the end, the ledger's own verification and its history must agree with the model as well."""
        assert self.ledger.differences() == []
        self._bill()
        self._look_back()

    def _bill(self) -> None:
        bench = self.path.bench
        if bench.charged:
            times = [at for at, _, _ in bench.charged]
            since, until = min(times) - timedelta(hours=1), max(times) + timedelta(hours=1)
            billed = self.ledger.use_over_time("blue", since, until)
            exact = {name: int(seconds * 1_000_000) for name, seconds in billed.items() if seconds}
            assert exact == bench.used_by_blue(until)

    def _look_back(self) -> None:
        past = self.path.bench.past
        times = [at for at, _ in past]
        if times != sorted(times):
            return  # the clock was put back: there is no state at a moment that was there twice
        latest = dict(past)
        for at in sorted(latest)[:: max(1, len(latest) // 5)]:
            for node, used in latest[at].items():
                assert self.ledger.node_at(node, at).used == {name: n for name, n in used.items() if n}


@pytest.fixture
def server(stack: Stack) -> Iterator[Server]:
    made = Server(stack)
    yield made
    made.close()


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_the_ledger_in_postgres_does_what_the_model_says(server: Server) -> None:
    PostgresMachine.server = server
    play(PostgresMachine, runs=25, steps=40, long_steps=20_000)
