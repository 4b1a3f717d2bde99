from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from worker.telemetry.logs import configure_logging, get_logger, log_context, redact

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines(restored: None) -> Lines:  # noqa: ARG001 - wanted for what it undoes
    output = io.StringIO()
    configure_logging("info", "json", output)
    return lambda: [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_carries_command_node_and_instance_only_while_they_are_worked_on(lines: Lines) -> None:
    log = get_logger("worker.engine")
    with log_context(command="c-1", node="cn-017", instance=None):
        log.info("applied", generation=4)
    log.info("idle")
    applied, idle = lines()
    assert applied.pop("timestamp").endswith("Z")
    assert applied == {
        "event": "applied", "generation": 4, "level": "info", "logger": "worker.engine",
        "command": "c-1", "node": "cn-017",
    }  # fmt: skip
    assert "command" not in idle


def test_lines_of_libraries_take_the_same_form(lines: Lines) -> None:
    with log_context(node="cn-017"):
        logging.getLogger("aiormq.connection").warning(
            "lost %s", "amqp://ledger:hunter2@rabbit:5672/v", extra={"attempts": 3}
        )
    logging.getLogger("aio_pika").info("too chatty to be heard")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
    lost, warned = lines()
    assert lost["event"] == "lost amqp://***@rabbit:5672/v"
    assert (lost["logger"], lost["level"], lost["node"]) == ("aiormq.connection", "warning", "cn-017")
    assert lost["attempts"] == 3
    assert "mind the gap" in warned["event"]


def open_address(address: str) -> None:
    raise OSError(f"cannot reach {address}")


def test_a_traceback_is_logged_on_one_line_without_its_passwords(lines: Lines) -> None:
    log = get_logger("worker")
    try:
        open_address("postgresql://worker:hunter2@db/ledger?password=hunter2")
    except OSError:
        log.exception("failed", url="amqps://u:hunter2@h/")
    (line,) = lines()
    assert "Traceback" in line["exception"]
    assert "hunter2" not in json.dumps(line)


def test_levels_below_the_one_set_are_not_written(lines: Lines) -> None:
    get_logger("worker").debug("unseen")
    logging.getLogger("somewhere").debug("unseen")
    assert lines() == []


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("style", ["json", "console"])
def test_a_log_that_cannot_be_written_does_not_stop_the_work(style: str) -> None:
    output = io.StringIO()
    configure_logging("info", style, output)  # type: ignore[arg-type]
    output.close()
    get_logger("worker").info("to nobody")
    logging.getLogger("somewhere").error("to nobody")


@pytest.mark.usefixtures("restored")
def test_lines_for_people_are_redacted_too() -> None:
    output = io.StringIO()
    configure_logging("debug", "console", output)
    get_logger("worker").info("connecting", url="amqp://u:hunter2@h/v")
    assert "hunter2" not in output.getvalue()
    assert "amqp://***@h/v" in output.getvalue()


HOSTILE = "\x1b[2J\x9b31m\u202egnp\n2026-11-22T07:00:00Z [info] forged\U000e0001"


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("style", ["json", "console"])
def test_nothing_that_is_logged_steers_a_terminal_or_forges_a_line(style: Literal["json", "console"]) -> None:
    output = io.StringIO()
    configure_logging("info", style, output)
    get_logger("worker").info(HOSTILE, **{HOSTILE * 20: HOSTILE}, headers={HOSTILE: [HOSTILE]})
    logging.getLogger("aiohttp.server").error("odd header %s", HOSTILE, extra={HOSTILE: HOSTILE})
    try:
        open_address(HOSTILE)
    except OSError:
        get_logger("worker").exception("failed")
    lines = output.getvalue().splitlines()
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith("2026-11-22")] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://u:p@h/v and qemu+tls://root@h/system", "amqp://***@h/v and qemu+tls://***@h/system"),
        ("postgresql://u:p@ss@h1:1,h2:2/db", "postgresql://***@h1:1,h2:2/db"),
        ("http://h/path@2", "http://h/path@2"),
        ("host=h password=hunter2 user=u", "host=h password=*** user=u"),
        ('{"password": "hunter2", "secret":"x"}', '{"password": "***", "secret":"***"}'),
        ("the token is unknown", "the token is unknown"),
        ("amqp://u:p/w?#@ss@h/v", "amqp://***@h/v"),
        ("PGPASSWORD=hunter2 password='two words'", "PGPASSWORD=*** password='***'"),
        ('{"password": "two \\"words\\" more", "x": 1}', '{"password": "***", "x": 1}'),
    ],
)
def test_credentials_are_masked_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(
    password=st.text(
        st.characters(codec="ascii", exclude_characters="/?#\"'<> @\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\\"), min_size=6
    )
)
def test_no_password_of_an_address_survives(password: str) -> None:
    secret = f"~{password}~"
    assert secret not in redact(f"cannot reach amqp://user:{secret}@host:5672/vhost, trying again")
