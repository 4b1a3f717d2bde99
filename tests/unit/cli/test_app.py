from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from worker.cli.app import run, tree
from worker.cli.common import errors
from worker.settings import describe_settings

COMMANDS = [
    "worker", "db upgrade", "db check", "topology apply", "topology check", "send", "node list", "node show",
    "instance show", "usage", "history", "verify", "dead list", "dead show", "dead replay", "dead discard", "doctor",
    "drift",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AMQP_URL", "DATABASE_URL", "DATABASE_READER_URL", "DATABASE_OWNER_URL", "DEBUG"):
        monkeypatch.delenv(f"NODELEDGER_{name}", raising=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_contract_explains_itself_and_speaks_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "NODELEDGER_" in shown, "every flag has a variable"


def test_the_exit_statuses_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert errors.STATUSES.replace("-", "").replace(" ", "") in shown.replace("-", "").replace(" ", "")
    assert all(command.split()[0] in shown for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["conjure"],
        ["send", "--conjure"],
        ["node", "show"],
        ["dead"],
        ["dead", "show", "one"],
        ["instance", "show", "42"],
        ["history", "--since", "yesterday"],
        ["history", "--limit", "0"],
        ["usage", "--since", "2026-01-01"],
        ["send", "/no/such/file"],
        ["node", "list"],
        ["topology", "check"],
        ["db", "check"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == errors.USAGE
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)
    assert "Traceback" not in shown.err


def test_a_flag_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NODELEDGER_WORKER_JSON", "1")
    monkeypatch.setenv("NODELEDGER_WORKER_SETTINGS", "1")
    assert run(["worker"]) == 0
    assert "NODELEDGER_HTTP_PORT" in {setting["variable"] for setting in json.loads(capsys.readouterr().out)}


def test_a_fault_of_the_program_is_told_in_one_line_and_shown_in_full_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def burst(work: Coroutine[object, object, object]) -> None:
        work.close()
        raise ZeroDivisionError("several\nlines")

    monkeypatch.setattr("worker.cli.usage.run", burst)
    assert run(["usage"]) == errors.FAULT
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setenv("NODELEDGER_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["usage"])


def test_no_two_flags_share_a_variable_with_each_other_or_with_a_setting() -> None:
    def variables(command: Any) -> Iterator[str]:
        yield from (parameter.envvar for parameter in command.params if parameter.envvar)
        for below in getattr(command, "commands", {}).values():
            yield from variables(below)

    names = [*variables(tree()), *(setting.variable for setting in describe_settings())]
    assert len(names) == len(set(names))
    assert {"NODELEDGER_SEND_WAIT", "NODELEDGER_DEAD_REPLAY_DRY_RUN", "NODELEDGER_NODE_SHOW_JSON"} <= set(names)
