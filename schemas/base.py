"""What every model of the contract shares: strictness, and the types of its fields."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_AMOUNT: Final = 2**40
"""The largest amount of anything: a sum of a million of them still fits a Postgres ``bigint``."""


class Model(BaseModel):
    """A part of a message: immutable, no unknown fields, no coercion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_bytes="utf8")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def _exact(value: object) -> object:
    if isinstance(value, float):
        raise ValueError('is a binary fraction; write decimals as strings, such as "1.5"')  # noqa: TRY004 - pydantic reports ValueError
    return value


NodeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
ResourceName = Annotated[str, StringConstraints(pattern=r"^CUSTOM_[A-Z0-9_]{1,248}$")]
TraitName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,254}$")]
HexId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{4}$")]
Amount = Annotated[int, Field(ge=0, le=MAX_AMOUNT)]
PositiveAmount = Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
Gibibytes = Annotated[int, Field(ge=0, le=MAX_AMOUNT // 1024)]
CellId = Annotated[int, Field(ge=0, le=65_535)]
Ratio = Annotated[Decimal, BeforeValidator(_exact), Field(gt=0, le=1000, max_digits=12, decimal_places=6)]
Percent = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, le=1000, max_digits=12, decimal_places=6)]
