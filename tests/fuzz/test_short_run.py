"""What a fuzzer begins with and what it has found, and near to it what Hypothesis makes in seconds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import NAMES
from tests.fuzz.seeds import FOUND, seeds
from tests.fuzz.targets import TARGETS

_EXAMPLES = 150
_BYTES = st.binary(max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8])
_EDITS = st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 12), _BYTES), max_size=6)


def edited(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """A seed with some of its bytes replaced by others, more or fewer."""
    for place, size, put in edits:
        at = place % (len(seed) + 1)
        seed = seed[:at] + put + seed[at + size :]
    return seed


def test_every_target_is_fuzzed() -> None:
    assert tuple(TARGETS) == NAMES
    assert {folder.name for folder in FOUND.iterdir()} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_no_input_that_was_ever_found_breaks_a_promise(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_near_to_what_is_known_breaks_a_promise(name: str) -> None:
    known = list(seeds(name))

    @settings(max_examples=_EXAMPLES)
    @given(st.sampled_from(known), _EDITS)
    def hold(seed: bytes, edits: list[tuple[int, int, bytes]]) -> None:
        TARGETS[name](edited(seed, edits))

    hold()
