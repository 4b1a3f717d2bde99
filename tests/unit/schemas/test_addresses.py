from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.addresses import address_pattern, device_address
from schemas.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable

parts = st.tuples(st.integers(0, 2**32 - 1) | st.integers(0, 16), *(st.integers(0, most) for most in (255, 31, 7)))


@given(parts, st.integers(1, 8), st.sampled_from([1, 2]), st.sampled_from([str.lower, str.upper]))
def test_every_spelling_of_a_pci_address_is_the_same_one(
    where: tuple[int, int, int, int], digits: int, width: int, write: Callable[[str], str]
) -> None:
    domain, bus, slot, function = where
    spelled = write(f"{domain:0{digits}x}:{bus:0{width}x}:{slot:0{width}x}.{function}")
    assert device_address(spelled) == f"{domain:04x}:{bus:02x}:{slot:02x}.{function}"
    assert address_pattern(spelled) == device_address(spelled)
    if domain == 0:
        assert device_address(spelled.partition(":")[2]) == device_address(spelled)


@given(st.text("0123456789abcdefABCDEFxyz:._-", min_size=1, max_size=20))
def test_the_form_of_an_address_is_a_form_of_itself(text: str) -> None:
    assert device_address(device_address(text)) == device_address(text)
    assert device_address(text) == device_address(text.upper())


@given(
    parts, st.sampled_from(["{0}:*", "{0}:{1}:*", "{0}:{1}:{2}.*", "{0}:*.{3}", "*:{1}:{2}.{3}", "{0}:{1}:{2}.[0-7]"])
)
def test_a_pattern_matches_an_address_whichever_way_both_are_spelled(
    where: tuple[int, int, int, int], form: str
) -> None:
    domain, bus, slot, function = where
    address = device_address(f"{domain:X}:{bus:x}:{slot:x}.{function}")
    full = form.format(f"{domain:04X}", f"{bus:02x}", f"{slot:02X}", function)
    assert fnmatchcase(address, address_pattern(full))
    if form.startswith("{0}:{1}"):
        assert fnmatchcase(address, address_pattern(form.format(f"{domain:08x}", f"{bus:X}", f"{slot:x}", function)))


def test_what_is_no_pci_address_is_only_written_in_lower_case() -> None:
    assert [device_address(text) for text in ("0.0.FFFE", "matrix", "3b:00.8")] == ["0.0.fffe", "matrix", "3b:00.8"]


@pytest.mark.parametrize("other", ["0000:3B:00.0", "3b:00.0", "0:3b:0.0"])
def test_two_spellings_of_one_address_are_one_device_listed_twice(other: str) -> None:
    devices = [{"address": address, "vendor": "10de", "product": "1db6"} for address in ("0000:3b:00.0", other)]
    with pytest.raises(ValidationError, match="a device address is listed twice"):
        Inventory.model_validate_json(json.dumps({"cpus": "0", "memory_mib": 1, "devices": devices}))
