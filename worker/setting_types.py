"""Types of settings: what each may be, and how it is read from the text of a variable."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from worker.permission_rules import PermissionRule, read_rules


def _address_of(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        # Not with urllib, to which an address of several servers is none.
        if value.get_secret_value().partition("://")[0] not in schemes:
            raise ValueError(f"should be an address that starts with {' or '.join(f'{name}://' for name in schemes)}")
        return value

    return AfterValidator(check)


def broker_addresses(text: str) -> tuple[str, ...]:
    """The addresses of a cluster's nodes, separated by spaces or commas; a comma inside a password is none."""
    return tuple(re.split(r"[\s,]+(?=amqps?://)", text.strip(" \t\r\n,")))


def _one_cluster(value: SecretStr) -> SecretStr:
    """One way in: what holds for the first address, such as its encryption and user, holds for all."""
    try:
        found = [urlsplit(address) for address in broker_addresses(value.get_secret_value())]
    except ValueError:
        found = []
    if not found or any(address.scheme not in {"amqp", "amqps"} for address in found):
        raise ValueError("should be an address that starts with amqp:// or amqps://, or several of them")
    if len({(address.scheme, address.username, address.path) for address in found}) > 1:
        raise ValueError("its addresses should have the same scheme, user and virtual host")
    return value


def _words(value: object) -> object:
    return tuple(re.split(r"[\s,]+", value.strip(" \t\r\n,"))) if isinstance(value, str) else value


def _rules(value: object) -> object:
    return read_rules(value) if isinstance(value, str) else value


AmqpUrl = Annotated[SecretStr, AfterValidator(_one_cluster)]
DatabaseUrl = Annotated[SecretStr, _address_of("postgres", "postgresql")]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Rules = Annotated[tuple[PermissionRule, ...] | None, NoDecode, BeforeValidator(_rules)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=0, le=36_500)]
Interval = Annotated[int, Field(ge=0, le=604_800)]
