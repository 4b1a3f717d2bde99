from __future__ import annotations

import pytest

from worker.bench.backlog import _own
from worker.bench.loads import Command
from worker.bench.rig import TimedAnswer
from worker.errors import OperationError

COMMANDS = [Command("a", "cn-1", b""), Command("b", "cn-1", b"")]
APPLIED = [TimedAnswer("a", applied=True, size_bytes=1), TimedAnswer("b", applied=True, size_bytes=1)]
STRANGER = TimedAnswer("c", applied=True, size_bytes=1)


def test_an_answer_that_comes_twice_or_from_an_earlier_run_is_no_fault() -> None:
    assert set(_own(COMMANDS, [STRANGER, *APPLIED, APPLIED[0]], told=True)) == {"a", "b"}


def test_a_run_with_a_missing_answer_is_no_measurement() -> None:
    with pytest.raises(OperationError, match="1 of 2 commands were not answered, as b"):
        _own(COMMANDS, [APPLIED[0], STRANGER], told=True)


def test_a_run_with_a_refused_command_is_no_measurement() -> None:
    refused = [APPLIED[0], TimedAnswer("b", applied=False, size_bytes=1)]
    with pytest.raises(OperationError, match="1 of 2 commands were not applied, as b"):
        _own(COMMANDS, refused, told=True)
    assert len(_own(COMMANDS, refused, told=False)) == 2
