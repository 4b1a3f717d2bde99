"""The assignment of an answer: where a guest lies on its host, in the contract's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def assignment(floating: str | None, cells: Sequence[object] = (), devices: Sequence[object] = ()) -> dict[str, object]:
    """The contract's assignment; ``floating`` are the CPUs of what is pinned to none, None for anywhere."""
    return {"cells": list(cells), "shared_cpus": floating, "devices": list(devices)}
