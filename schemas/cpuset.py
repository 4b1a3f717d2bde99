"""CPU sets in the form Linux prints them: ``0-3,8``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, Field

MAX_CPU: Final = 65_535
"""The highest CPU number accepted: a bound on what a short string can make us allocate."""

MAX_LENGTH: Final = 4096
"""The longest CPU set accepted, in characters."""

_PART = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
_LIST = f"^(?:{_PART}(?:,{_PART})*)?$"
_RANGE = re.compile("([0-9]{1,5})(?:-([0-9]{1,5}))?")


def parse_cpu_set(text: str) -> frozenset[int]:
    """Read a CPU set in Linux list form; the empty string is the empty set.

    Raises:
        ValueError: a part that is neither a number nor a range, a range that
            runs backwards, or a number above :data:`MAX_CPU`.
    """
    cpus: set[int] = set()
    for first, last in _ranges(text):
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def parse_cpu_mask(text: str) -> int:
    """Read a CPU set as a number whose bit ``n`` stands for CPU ``n``.

    Raises:
        ValueError: as :func:`parse_cpu_set`.
    """
    mask = 0
    for first, last in _ranges(text):
        mask |= ((2 << (last - first)) - 1) << first
    return mask


def format_cpu_set(cpus: Iterable[int]) -> str:
    """Write a CPU set in Linux list form, ascending, ranges joined."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def lowest_cpu(mask: int) -> int:
    """The lowest CPU of a mask that is not empty."""
    return (mask & -mask).bit_length() - 1


def _ranges(text: str) -> Iterable[tuple[int, int]]:
    for place, part in enumerate(text.split(",") if text else (), start=1):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"part {place} is neither a CPU number nor a range such as 0-3")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise ValueError(f"part {place}, a range, runs backwards")
        if last > MAX_CPU:
            raise ValueError(f"part {place} is above {MAX_CPU}, the highest CPU number")
        yield first, last


def _checked(text: str) -> str:
    for _ in _ranges(text):
        pass
    return text


CpuSet = Annotated[str, Field(max_length=MAX_LENGTH, json_schema_extra={"pattern": _LIST}), AfterValidator(_checked)]
"""A string that :func:`parse_cpu_set` accepts."""
