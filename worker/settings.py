"""The settings: each is an environment variable ``NODELEDGER_…``; a secret may stand in a file named by ``…_FILE``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.errors import SettingsError
from worker.setting_types import AmqpUrl, Count, DatabaseUrl, Days, Interval, Rules, Seconds, Words

PREFIX: Final = "NODELEDGER_"

_MAX_SECRET_BYTES: Final = 65_536


class Settings(BaseSettings):
    """Everything that can be set, from the environment; :func:`load_settings` reads it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    amqp_url: AmqpUrl | None = None
    """The address of the broker, with user, password and virtual host; one a node of a cluster, separated by spaces."""
    amqp_cafile: Path | None = None
    """File of the certificate authorities trusted to vouch for the broker; needs an ``amqps://`` address."""
    amqp_certfile: Path | None = None
    """File of the client certificate shown to the broker."""
    amqp_keyfile: Path | None = None
    """File of the client certificate's private key."""
    heartbeat_seconds: Annotated[int, Field(ge=1, le=3600)] = 20
    """Interval after which a silent connection to the broker is probed, in seconds."""
    confirm_seconds: Seconds = 30
    """How long the broker may take to confirm a published message, in seconds."""
    declare_topology: bool = True
    """Whether a worker declares exchanges and queues at its start, or only checks them."""
    shards: Annotated[int, Field(ge=1, le=100)] = 16
    """Number of command queues; must be the number stored in the database."""
    prefetch: Annotated[int, Field(ge=1, le=65_535)] = 400
    """Unacknowledged messages a worker takes from one shard."""

    database_url: DatabaseUrl | None = None
    """The database's address in the worker's role; ``postgresql://u:p@a:5432,b:5432/db`` with a replica."""
    database_owner_url: DatabaseUrl | None = None
    """The database's address in the role that owns the schema; only for ``db upgrade`` and ``db check``."""
    database_reader_url: DatabaseUrl | None = None
    """The database's address in the read-only role; readers use ``database_url`` where it is not set."""
    database_cafile: Path | None = None
    """File of the certificate authorities trusted to vouch for the database."""
    database_certfile: Path | None = None
    """File of the client certificate shown to the database."""
    database_keyfile: Path | None = None
    """File of the client certificate's private key."""
    database_pool_min: Annotated[int, Field(ge=0, le=1000)] = 1
    """Connections to the database kept open by a worker."""
    database_pool_max: Annotated[int, Field(ge=1, le=1000)] = 8
    """Connections to the database a worker opens at most."""
    database_connect_seconds: Seconds = 10
    """How long opening a connection to the database may take, in seconds."""
    database_command_seconds: Seconds = 40
    """How long one statement may take before its connection is given up, in seconds."""
    database_statement_cache: bool = True
    """Whether statements are prepared; false behind a PgBouncer that knows no prepared statements."""

    batch_limit: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Commands committed in one transaction at most."""
    committers: Annotated[int, Field(ge=1, le=64)] = 2
    """Transactions a worker has open at the same time."""
    outbox_sweep_seconds: Seconds = 5
    """Interval at which outcomes that a crash left unpublished are looked for, in seconds."""
    shutdown_seconds: Seconds = 30
    """How long a worker that was told to stop may take to finish what it has begun, in seconds."""
    hang_seconds: Seconds = 30
    """How long a worker may be busy without a pause before it is taken for hung and ends itself, in seconds."""

    permissions: Rules = None
    """Which broker users may send what: rules as JSON, or a ``.toml`` or ``.json`` file of them; unset: everything."""

    hypervisor_allowed: Words = ("qemu:///system", "test:///default")
    """Patterns of libvirt addresses that may be opened, separated by spaces or commas; by default of no other host."""
    hypervisor_deadline_seconds: Seconds = 5
    """How long a call to a hypervisor may take, in seconds."""
    hypervisor_threads: Count = 64
    """Calls to hypervisors that run at the same time."""
    park_probe_min_seconds: Seconds = 1
    """First pause before a hypervisor that did not answer is asked again, in seconds."""
    park_probe_max_seconds: Seconds = 30
    """Longest pause before a hypervisor that did not answer is asked again, in seconds."""
    park_deadline_seconds: Seconds = 86_400
    """How long a command waits for its hypervisor before it is dead-lettered, in seconds."""
    delete_verify_seconds: Seconds = 5
    """Pause before a hypervisor is asked again whether a deleted instance's domain is gone, in seconds."""

    audit_interval_seconds: Interval = 600
    """How often a node is compared with its hypervisor where its policy does not say, in seconds; 0: never."""
    audit_calls: Annotated[int, Field(ge=1, le=1000)] = 16
    """Nodes that a worker compares with their hypervisors at the same time."""
    audit_calls_per_second: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] = 50
    """Nodes that a worker begins to compare in a second at most."""
    watched_hypervisors: Annotated[int, Field(ge=0, le=100_000)] = 2500
    """Hypervisors whose events a worker listens to, over a connection to each that stays open; 0: none."""

    retention_command_days: Days = 30
    """How long commands and their outcomes are kept, in days; 0: forever."""
    retention_entry_days: Days = 730
    """How long lines of the ledger are kept, in days; 0: forever."""
    retention_tombstone_days: Days = 30
    """How long the marks of deleted instances are kept, in days; 0: forever."""
    retention_dead_letter_days: Days = 90
    """How long dead letters are kept, in days; 0: forever."""
    retention_drift_days: Days = 30
    """How long differences from a hypervisor are kept once they are over, in days; 0: forever."""

    http_host: Annotated[str, Field(min_length=1, max_length=255)] = "127.0.0.1"
    """Address on which health, metrics and the read API are served."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """Port on which they are served; 0: any free one."""
    http_names: Words = ()
    """Names by which they may be addressed, separated by spaces or commas, besides addresses and the machine's own."""
    http_port_file: Path | None = None
    """File that the port in use is written to, for those who start a worker on any free one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""
    log_format: Literal["json", "console"] = "json"
    """JSON lines for programs, or coloured lines for people."""
    trace_exporter: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")] | None = None
    """Name of the OpenTelemetry span exporter, such as ``otlp`` or ``console``; unset: no traces."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for server in ("amqp", "database"):
            if (getattr(self, f"{server}_certfile") is None) != (getattr(self, f"{server}_keyfile") is None):
                _wrong(f"{server}_certfile", f"goes together with {variable(f'{server}_keyfile')}")
        for lower, upper in (
            ("park_probe_min_seconds", "park_probe_max_seconds"),
            ("database_pool_min", "database_pool_max"),
        ):
            if getattr(self, lower) > getattr(self, upper):
                _wrong(lower, f"is above {variable(upper)}")
        tombstones = self.retention_tombstone_days
        if tombstones and not 0 < self.retention_command_days <= tombstones:
            _wrong("retention_tombstone_days", f"is below {variable('retention_command_days')}")
        return self

    def required(self, *names: str) -> str:
        """The text of the first of these secrets that is set.

        Raises:
            SettingsError: none is set.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None:
                return str(value.get_secret_value())
        name = variable(names[0])
        raise SettingsError(
            f"{name} is not set: put the address there, or the name of a file that holds it in {name}_FILE"
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's hook
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's hook
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was given in the call, then the environment, then the files that it names."""
        return init_settings, env_settings, _SecretFiles(settings_cls)


class _SecretFiles(PydanticBaseSettingsSource):
    """Secrets from the files that ``NODELEDGER_<SECRET>_FILE`` name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = f"{variable(field_name)}_FILE"
        path = os.environ.get(name) if _is_secret(field) else None
        if not path:
            return None, field_name, False
        if os.environ.get(variable(field_name)):
            raise SettingsError(f"{name} is set and so is {variable(field_name)}: which of them?")
        try:
            with Path(path).open("rb") as file:
                text = file.read(_MAX_SECRET_BYTES).decode().strip()
        except OSError as error:
            raise SettingsError(f"{name}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{name}: the file is not text") from None
        if not text:
            raise SettingsError(f"{name}: the file is empty")
        return text, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as documentation shows it."""

    variable: str
    default: str
    description: str


def load_settings(**given: Any) -> Settings:
    """The settings: what is ``given`` and not ``None``, else the environment, else the defaults.

    Raises:
        SettingsError: a setting is wrong.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise SettingsError("; ".join(_fault(fault["loc"], fault["msg"]) for fault in faults)) from None


def describe_settings() -> list[Setting]:
    """Every setting with its variable, default and meaning, in the order of the source."""
    return [
        Setting(variable(name), _default(field.default), (field.description or "").replace("``", "`"))
        for name, field in Settings.model_fields.items()
    ]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _wrong(name: str, reason: str) -> None:
    raise ValueError(f"{variable(name)}: {reason}")


def _fault(location: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"{variable(str(location[0]))}: {reason}" if location else reason
