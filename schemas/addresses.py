"""A device's address in the one form in which addresses are compared and answered.

Lower case; of a PCI address the domain in at least four digits, bus and slot in
two. What is no PCI address (``0.0.fffe``, ``matrix``) is only written in lower
case. A pattern takes the same form as far as its parts are spelled out.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

from schemas.base import WRITTEN

_PCI: Final = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9a-f]{1,8}", re.ASCII)
_WITH_DOMAIN: Final = re.compile(r"([0-9a-f]{1,8}):([^:]*):([^:.]*)(\..*|)", re.ASCII)
_WITHOUT_DOMAIN: Final = re.compile(r"[0-9a-f]{1,2}:[^:]*\.[^:]*", re.ASCII)
_COMMON: Final = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)


def device_address(text: str) -> str:
    """Write a device's address in the form in which addresses are compared."""
    if _COMMON.fullmatch(text) is not None:
        return text
    lowered = text.lower()
    match = _PCI.fullmatch(lowered)
    if match is None:
        return lowered
    domain, bus, slot, function = match.groups("0")
    return f"{int(domain, 16):04x}:{bus:0>2}:{slot:0>2}.{function}"


def address_pattern(text: str) -> str:
    """Write a pattern of addresses as the addresses it is to match are written; its wildcards stay."""
    pattern = device_address(text)
    if _WITHOUT_DOMAIN.fullmatch(pattern) is not None:
        pattern = f"0:{pattern}"
    match = _WITH_DOMAIN.fullmatch(pattern)
    if match is None:
        return pattern
    domain, bus, slot, function = match.groups()
    return f"{int(domain, 16):04x}:{_two(bus)}:{_two(slot) if function else slot}{function}"


def _two(part: str) -> str:
    return f"{part:0>2}" if _DIGITS.fullmatch(part) else part


DeviceAddress = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9:._-]{0,127}$"), AfterValidator(device_address)
]
AddressPattern = Annotated[
    str, StringConstraints(min_length=1, max_length=64), WRITTEN, AfterValidator(address_pattern)
]
"""An address that may hold ``*``, ``?`` and ``[...]``."""
