"""What every model of the contract shares: strictness, and the types of its fields."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

MAX_AMOUNT: Final = 2**40
"""The largest amount of anything: a sum of a million of them still fits a Postgres ``bigint``."""

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_DAY = r"(?:19[7-9][0-9]|2[0-9]{3})-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
_TIME = f"^{_DAY}[Tt]{_CLOCK}$"
_DECIMAL = r"^[0-9]{1,4}(?:\.[0-9]{1,6})?$"

# Every code point but the controls (Cc), the line and paragraph separators, the surrogates, the noncharacters, and the
# planes 4 to 13, of which nothing is assigned. What else one version of Unicode does not assign is taken, since
# a text must not be a command for one worker of a pool and malformed for another.
_WRITABLE = (
    r" -~\u00A0-\u2027\u202A-\uD7FF\uE000-\uFDCF\uFDF0-\uFFFD"
    "\U00010000-\U0001fffd\U00020000-\U0002fffd\U00030000-\U0003fffd"
    "\U000e0000-\U000efffd\U000f0000-\U000ffffd\U00100000-\U0010fffd"
)
_LAYOUT = r"\t\n"


class Model(BaseModel):
    """A part of a message: immutable, no unknown fields, no coercion of types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )


def _from_text(pattern: str, reader: CoreSchema, fault: str) -> CoreSchema:
    """Text of one form only, read by a lenient ``reader``.

    The readers take many forms (a number for a time, a URN for a UUID); a
    contract has one.
    """
    text = core_schema.chain_schema([core_schema.str_schema(strict=True, pattern=pattern), reader])
    return core_schema.custom_error_schema(text, "form", custom_error_message=fault)


def _uuid_schema(_source: Any, _handler: Any) -> CoreSchema:
    reader = core_schema.uuid_schema(strict=False)
    return core_schema.json_or_python_schema(
        json_schema=_from_text(UUID_PATTERN, reader, "should be a UUID in its hyphenated form"),
        python_schema=core_schema.is_instance_schema(UUID),
    )


def _moment_schema(_source: Any, _handler: Any) -> CoreSchema:
    reader = core_schema.datetime_schema(strict=False, tz_constraint="aware", microseconds_precision="truncate")
    fault = "should be an RFC 3339 time with its offset, such as 2026-11-22T07:00:00Z, from 1970 to 2999"
    return core_schema.json_or_python_schema(
        json_schema=_from_text(_TIME, reader, fault),
        python_schema=core_schema.datetime_schema(strict=True, tz_constraint="aware"),
    )


def _decimal_schema(lowest: Literal["ge", "gt"]) -> GetPydanticSchema:
    limits: Any = {lowest: 0, "le": 1000, "max_digits": 10, "decimal_places": 6}
    reader = core_schema.decimal_schema(strict=False, **limits)
    text = core_schema.chain_schema([core_schema.str_schema(strict=True, pattern=_DECIMAL), reader])
    number = core_schema.chain_schema([core_schema.int_schema(strict=True, ge=0, le=1000), reader])
    sign = "above 0 and at most" if lowest == "gt" else "from 0 to"
    fault = f'should be a decimal {sign} 1000, an integer or a string such as "1.5"'
    schema = core_schema.json_or_python_schema(
        json_schema=core_schema.custom_error_schema(
            core_schema.union_schema([text, number]), "form", custom_error_message=fault
        ),
        python_schema=core_schema.decimal_schema(strict=True, **limits),
    )
    return GetPydanticSchema(lambda _source, _handler: schema)


def _decimal_json(bound: Literal["minimum", "exclusiveMinimum"]) -> WithJsonSchema:
    number = {"type": "integer", bound: 0, "maximum": 1000}
    return WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DECIMAL}, number]})


class Written:
    """Text of characters that can be written, by a rule that is the same whatever version of Unicode a program knows.

    ``lines`` also allows tabs and ends of lines.
    """

    def __init__(self, *, lines: bool = False) -> None:
        self.pattern: Final = f"^[{_WRITABLE}{_LAYOUT if lines else ''}]*$"
        self._allowed: Final = re.compile(self.pattern)

    def allows(self, text: str) -> bool:
        """Whether every character may be there."""
        return (text.isascii() and text.isprintable()) or self._allowed.fullmatch(text) is not None

    def _check(self, text: str) -> str:
        if not self.allows(text):
            raise ValueError("holds control or unassigned characters")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}


def _by_key(mapping: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(mapping.items())) if len(mapping) > 1 else mapping


BY_KEY: Final = AfterValidator(_by_key)
"""For mappings: equal content in one order, so that it is equal bytes when written."""

Identifier = Annotated[
    UUID, GetPydanticSchema(_uuid_schema), WithJsonSchema({"type": "string", "format": "uuid", "pattern": UUID_PATTERN})
]
Moment = Annotated[
    datetime,
    GetPydanticSchema(_moment_schema),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _TIME}),
]
NodeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]
WRITTEN: Final = Written()
Label = Annotated[str, StringConstraints(min_length=1, max_length=255), WRITTEN]
Text = Annotated[str, StringConstraints(max_length=1024), Written(lines=True)]
ResourceName = Annotated[str, StringConstraints(pattern=r"^CUSTOM_[A-Z0-9_]{1,248}$")]
TraitName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,254}$")]
HexId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{4}$", to_lower=True)]
Amount = Annotated[int, Field(ge=0, le=MAX_AMOUNT)]
PositiveAmount = Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
Gibibytes = Annotated[int, Field(ge=0, le=MAX_AMOUNT // 1024)]
CellId = Annotated[int, Field(ge=0, le=65_535)]
Ratio = Annotated[Decimal, _decimal_schema("gt"), _decimal_json("exclusiveMinimum")]
Percent = Annotated[Decimal, _decimal_schema("ge"), _decimal_json("minimum")]
