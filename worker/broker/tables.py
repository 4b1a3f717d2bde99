"""AMQP field tables, as a message's headers are: read within bounds, whatever they hold.

A table is the sender's to fill. It may be nested as deep as its bytes reach,
name a field twice, hold text that is no UTF-8 and moments that no calendar
has. Reading takes time in proportion to its bytes, and depth has a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception, named like one
from typing import Any, Final

from pamqp.encode import field_table

# More than any tracing or routing library sends; a table beyond it is not looked at.
TABLE_MAX_BYTES: Final = 65_536
_MAX_DEPTH: Final = 16
_LONG: Final = Struct(">I")
_MILLISECONDS_FROM: Final = 1 << 32  # seconds would be beyond the year 2106

# What each kind of value takes on the wire, by the mark that RabbitMQ uses for it.
_FIXED: Final = {
    mark: Struct(form)
    for mark, form in {
        b"t": ">?",
        b"b": ">b",
        b"B": ">B",
        b"s": ">h",
        b"u": ">H",
        b"I": ">i",
        b"i": ">I",
        b"l": ">q",
        b"L": ">q",
        b"f": ">f",
        b"d": ">d",
    }.items()
}
_DECIMAL: Final = Struct(">BI")
_TIMESTAMP: Final = Struct(">Q")


def read_table(raw: bytes) -> dict[str, object]:
    """The fields of a table with its length before it; of a name given twice the last value holds.

    Text that is no UTF-8 is read as bytes, and a moment that no calendar has
    as the number that stands for it.

    Raises:
        ValueError: it cannot be read, or is nested too deep.
    """
    try:
        return _table(raw, 0, len(raw), _MAX_DEPTH)[0]
    except (StructError, IndexError) as error:
        raise ValueError(str(error)) from error


def write_tables(fields: Mapping[str, object], limit: int) -> dict[str, Any]:
    """Of these fields, in their order, those that the client library can write within ``limit`` bytes together."""
    written: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            field: dict[str, Any] = {name: _writable(value, _MAX_DEPTH)}
            size = len(field_table(field))
        except Exception:  # noqa: BLE001, S112 - the library's errors have no common base, and all mean "not this one"
            continue
        if size <= limit:
            written |= field
            limit -= size
    return written


def _writable(value: object, depth: int) -> object:
    if not depth:
        raise ValueError("nested too deep")
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, Mapping):
        return {name: _writable(item, depth - 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(item, depth - 1) for item in value]
    return value


def _span(raw: bytes, at: int, stop: int) -> tuple[int, int]:
    """Where something with its length before it begins and ends."""
    begin = at + 4
    end = begin + int(_LONG.unpack_from(raw, at)[0])
    if end > stop:
        raise IndexError("longer than what it is part of")
    return begin, end


def _table(raw: bytes, at: int, stop: int, depth: int) -> tuple[dict[str, object], int]:
    at, end = _span(raw, at, stop)
    fields: dict[str, object] = {}
    while at < end:
        name = at + 1
        at = name + raw[at]
        fields[_name(raw[name:at])], at = _value(raw, at, end, depth)
    return fields, end


def _array(raw: bytes, at: int, stop: int, depth: int) -> tuple[list[object], int]:
    at, end = _span(raw, at, stop)
    items: list[object] = []
    while at < end:
        item, at = _value(raw, at, end, depth)
        items.append(item)
    return items, end


def _value(raw: bytes, at: int, stop: int, depth: int) -> tuple[object, int]:
    mark = raw[at : at + 1]
    at += 1
    if fixed := _FIXED.get(mark):
        value, end = fixed.unpack_from(raw, at)[0], at + fixed.size
    elif reader := _READERS.get(mark):
        if not depth:
            raise ValueError("nested too deep")
        value, end = reader(raw, at, stop, depth - 1)
    elif mark in b"V\0":
        value, end = None, at
    else:
        raise ValueError(f"a value of unknown kind {mark!r}")
    if at > stop or end > stop:
        raise IndexError("longer than what it is part of")
    return value, end


def _text(raw: bytes, at: int, stop: int, _depth: int) -> tuple[object, int]:
    begin, end = _span(raw, at, stop)
    try:
        return raw[begin:end].decode().replace("\0", "\N{REPLACEMENT CHARACTER}"), end
    except UnicodeDecodeError:
        return raw[begin:end], end


def _bytes(raw: bytes, at: int, stop: int, _depth: int) -> tuple[object, int]:
    begin, end = _span(raw, at, stop)
    return raw[begin:end], end


def _decimal(raw: bytes, at: int, _stop: int, _depth: int) -> tuple[object, int]:
    scale, digits = _DECIMAL.unpack_from(raw, at)
    return Decimal(digits).scaleb(-scale), at + _DECIMAL.size


def _moment(raw: bytes, at: int, _stop: int, _depth: int) -> tuple[object, int]:
    number: int = _TIMESTAMP.unpack_from(raw, at)[0]
    seconds = number / 1000 if number >= _MILLISECONDS_FROM else number
    try:
        return datetime.fromtimestamp(seconds, UTC), at + _TIMESTAMP.size
    except (ValueError, OverflowError, OSError):
        return number, at + _TIMESTAMP.size


def _name(raw: bytes) -> str:
    """A name as every database can keep it."""
    return raw.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


_READERS: Final[dict[bytes, Callable[[bytes, int, int, int], tuple[object, int]]]] = {
    b"F": _table,
    b"A": _array,
    b"S": _text,
    b"x": _bytes,
    b"D": _decimal,
    b"T": _moment,
}


class Headers(Mapping[str, object]):
    """A message's headers, decoded when somebody first looks; a table that cannot be read is empty."""

    __slots__ = ("_raw", "_table", "size")

    def __init__(self, raw: bytes) -> None:
        self.size = len(raw)
        self._raw = raw
        self._table: dict[str, object] | None = None

    def _decoded(self) -> dict[str, object]:
        if self._table is None:
            try:
                self._table = read_table(self._raw)
            except ValueError:
                self._table = {}
            self._raw = b""
        return self._table

    def __getitem__(self, key: str) -> object:
        return self._decoded()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())


NO_HEADERS: Final[Headers] = Headers(b"\x00\x00\x00\x00")
