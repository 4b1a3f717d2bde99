from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.errors import SettingsError
from worker.setting_types import broker_addresses
from worker.settings import Settings, describe_settings, load_settings

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NODELEDGER_"):
            monkeypatch.delenv(name)


def fault(**environment: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"NODELEDGER_{name}", value)
        with pytest.raises(SettingsError) as caught:
            load_settings()
    return str(caught.value)


def test_without_an_environment_the_defaults_stand() -> None:
    settings = load_settings()
    assert (settings.shards, settings.prefetch, settings.http_port) == (16, 400, 9464)
    assert settings.hypervisor_allowed == ("qemu:///system", "test:///default")
    assert settings.amqp_url is None


def test_what_is_given_in_the_call_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODELEDGER_HTTP_PORT", "8080")
    monkeypatch.setenv("NODELEDGER_SHARDS", "4")
    settings = load_settings(http_port=0, shards=None)
    assert (settings.http_port, settings.shards) == (0, 4)


def test_a_list_is_written_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODELEDGER_HYPERVISOR_ALLOWED", " qemu:///system, test:///default\ntest:///hosts/*.xml ")
    assert load_settings().hypervisor_allowed == ("qemu:///system", "test:///default", "test:///hosts/*.xml")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODELEDGER_HEARTBEAT_SECONDS", "")
    assert load_settings().heartbeat_seconds == 20


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:p@h/d",
        "postgres://u@h1:5432,h2:5433/d?target_session_attrs=primary",
        "postgresql:///d?host=/run/pg",
    ],
)
def test_every_form_of_a_database_address_is_taken(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NODELEDGER_DATABASE_URL", address)
    assert load_settings().required("database_url") == address


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        (
            {"HTTP_PORT": SECRET},
            "NODELEDGER_HTTP_PORT: should be a valid integer, unable to parse string as an integer",
        ),
        ({"SHARDS": "0"}, "NODELEDGER_SHARDS: should be greater than or equal to 1"),
        ({"LOG_LEVEL": SECRET}, "NODELEDGER_LOG_LEVEL: should be 'debug', 'info', 'warning' or 'error'"),
        ({"PARK_DEADLINE_SECONDS": "nan"}, "NODELEDGER_PARK_DEADLINE_SECONDS: should be a finite number"),
        ({"AMQP_URL": f"http://u:{SECRET}@h"}, "NODELEDGER_AMQP_URL: should be an address that starts with amqp://"),
        ({"DATABASE_URL": SECRET}, "NODELEDGER_DATABASE_URL: should be an address that starts with postgres://"),
        ({"AMQP_CERTFILE": "/c"}, "NODELEDGER_AMQP_CERTFILE: goes together with NODELEDGER_AMQP_KEYFILE"),
        (
            {"PARK_PROBE_MIN_SECONDS": "60"},
            "NODELEDGER_PARK_PROBE_MIN_SECONDS: is above NODELEDGER_PARK_PROBE_MAX_SECONDS",
        ),
        (
            {"RETENTION_TOMBSTONE_DAYS": "7"},
            "NODELEDGER_RETENTION_TOMBSTONE_DAYS: is below NODELEDGER_RETENTION_COMMAND",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_the_reason_and_without_its_value(environment: dict[str, str], text: str) -> None:
    assert fault(**environment).startswith(text)
    assert SECRET not in fault(**environment)


def test_all_wrong_settings_are_named_at_once() -> None:
    text = fault(SHARDS="0", PREFETCH="x")
    assert "NODELEDGER_SHARDS: " in text
    assert "; NODELEDGER_PREFETCH: " in text


def test_a_secret_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"amqp://u:{SECRET}@h/v\n")
    monkeypatch.setenv("NODELEDGER_AMQP_URL_FILE", str(file))
    settings = load_settings()
    assert settings.amqp_url == SecretStr(f"amqp://u:{SECRET}@h/v")
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"


def test_the_broker_may_have_an_address_for_each_node_of_its_cluster() -> None:
    nodes = ("amqp://u:a,b@h1/v", "amqp://u:a,b@h2:5673/v")
    for between in (",", " ", "\n", ", "):
        assert broker_addresses(f" {between.join(nodes)}\n") == nodes
    assert load_settings(amqp_url=" ".join(nodes)).amqp_url is not None
    assert "same scheme" in fault(AMQP_URL="amqp://u@h1/v,amqps://u@h2/v")
    assert "same scheme" in fault(AMQP_URL="amqp://u@h1/v,amqp://u@h2/w")


def test_a_secrets_file_that_is_of_no_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "wrong").write_text(SECRET)
    name = "NODELEDGER_AMQP_URL_FILE"
    assert fault(AMQP_URL_FILE=str(tmp_path / "none")) == f"{name}: cannot be read (No such file or directory)"
    assert fault(AMQP_URL_FILE=str(tmp_path / "empty")) == f"{name}: the file is empty"
    assert fault(AMQP_URL_FILE=str(tmp_path / "binary")) == f"{name}: the file is not text"
    assert fault(AMQP_URL_FILE=str(tmp_path / "wrong")).startswith("NODELEDGER_AMQP_URL: should be an address")
    assert "which of them?" in fault(AMQP_URL="amqp://h", AMQP_URL_FILE=str(tmp_path / "empty"))


def test_a_secret_that_is_needed_and_missing_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^NODELEDGER_DATABASE_READER_URL is not set: .*_FILE$"):
        load_settings().required("database_reader_url", "database_url")


def test_every_setting_says_what_it_means_and_in_which_unit() -> None:
    described = describe_settings()
    assert len(described) == len(Settings.model_fields)
    for setting in described:
        assert setting.description.endswith("."), setting
        assert ("_SECONDS" in setting.variable) == ("in seconds" in setting.description), setting
        assert ("_DAYS" in setting.variable) == ("in days" in setting.description), setting
