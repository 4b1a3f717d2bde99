"""How work that takes a while is told about: what it needs of whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], AbstractContextManager[Callable[[int], None]]]
"""Shows the progress of what the text names, while its context lasts; that gives what to call with each step."""

Note: TypeAlias = Callable[[str], None]
"""Says something beside the result."""
