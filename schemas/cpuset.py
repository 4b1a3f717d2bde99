"""CPU sets in the form Linux prints them: ``0-3,8``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, Field

MAX_CPU: Final = 65_535
"""The highest CPU number accepted: a bound on what a short string can make us allocate."""

_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?", re.ASCII)


def parse_cpu_set(text: str) -> frozenset[int]:
    """Read a CPU set in Linux list form; the empty string is the empty set.

    Raises:
        ValueError: a part that is neither a number nor a range, a range that
            runs backwards, or a number above :data:`MAX_CPU`.
    """
    cpus: set[int] = set()
    for part in text.split(",") if text else ():
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part[:32]!r} is neither a CPU number nor a range such as 0-3")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise ValueError(f"the range {part!r} runs backwards")
        if last > MAX_CPU:
            raise ValueError(f"CPU {last} is above {MAX_CPU}")
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def format_cpu_set(cpus: Iterable[int]) -> str:
    """Write a CPU set in Linux list form, ascending, ranges joined."""
    parts: list[str] = []
    first = last = -1
    for cpu in [*sorted(set(cpus)), None]:
        if cpu is not None and cpu == last + 1 and last >= 0:
            last = cpu
            continue
        if last >= 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        if cpu is not None:
            first = last = cpu
    return ",".join(parts)


def _checked(text: str) -> str:
    parse_cpu_set(text)
    return text


CpuSet = Annotated[str, Field(max_length=4096), AfterValidator(_checked)]
"""A string that :func:`parse_cpu_set` accepts."""
