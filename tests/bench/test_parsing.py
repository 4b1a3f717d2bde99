"""How long a command takes to read, in microseconds: the best of many rounds, on whatever core this is."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from typing import Any

import pytest

from schemas import parse_command
from schemas.examples import COMMANDS

pytestmark = pytest.mark.bench

PLAIN: dict[str, Any] = {
    name: value for name, value in COMMANDS["claim"].items() if name not in {"topology", "devices"}
}


def microseconds(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=100, repeat=500)) / 100 * 1e6


@pytest.mark.parametrize(("name", "command", "limit"), [("plain", PLAIN, 16), ("pinned", COMMANDS["claim"], 40)])
def test_reading_a_claim_is_cheap(name: str, command: dict[str, Any], limit: float) -> None:
    body = json.dumps(command).encode()
    read = parse_command(body)
    parsing, fingerprinting = microseconds(lambda: parse_command(body)), microseconds(read.fingerprint)
    print(f"{name}: parse_command {parsing:.1f} µs, fingerprint {fingerprinting:.1f} µs")  # noqa: T201 - the figure
    assert parsing < limit
    assert fingerprinting < limit / 2
