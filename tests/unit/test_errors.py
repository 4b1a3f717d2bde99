"""Every exception of the product hangs below one root, and stands in the drawing of the tree."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import schemas
import worker
from worker import errors
from worker.errors import NodeledgerError


def defined() -> set[type[BaseException]]:
    """Every exception class that a module of the product defines."""
    found: set[type[BaseException]] = set()
    for package in (schemas, worker):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.name:
                    found.add(value)
    return found


def drawn() -> Iterator[tuple[str, str | None]]:
    """Every name of the drawing, with the one that it hangs below."""
    above: list[tuple[int, str]] = []
    for indent, name in re.findall(r"^( *)\* (\w+):", errors.__doc__ or "", re.MULTILINE):
        while above and above[-1][0] >= len(indent):
            above.pop()
        yield name, above[-1][1] if above else None
        above.append((len(indent), name))


def test_every_exception_hangs_below_the_root() -> None:
    found = defined()
    assert NodeledgerError in found
    assert {one for one in found if not issubclass(one, NodeledgerError)} == set()


def test_the_tree_is_drawn_as_it_is() -> None:
    parents = {
        one.__name__: next((base.__name__ for base in one.__bases__ if issubclass(base, NodeledgerError)), None)
        for one in defined()
    }
    assert dict(drawn()) == parents
