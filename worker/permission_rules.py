"""The rules of who may send what, as an operator writes them: TOML or JSON, in a file or in the setting itself."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from schemas.commands import KINDS
from worker.errors import NodeledgerError

_MAX_BYTES: Final = 1024 * 1024


class RulesError(NodeledgerError, ValueError):
    """Rules that cannot be used; the message says where, and quotes none of them."""


def matcher(pattern: str) -> re.Pattern[str]:
    """What a pattern matches: itself, with ``*`` for any characters. Nothing else in it is special."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _known_kind(pattern: str) -> str:
    if not any(matcher(pattern).fullmatch(kind) for kind in KINDS):
        raise ValueError("matches no kind of command")
    return pattern


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=1000)]
Kinds = Annotated[tuple[Annotated[Pattern, AfterValidator(_known_kind)], ...], Field(min_length=1, max_length=1000)]


class PermissionRule(BaseModel):
    """Lets some broker users send some kinds of commands for some nodes and projects. What is left out is everything.

    Commands on a node itself (``node.put``, ``node.remove``, ``audit``) concern
    every project: only a rule with the project ``*`` allows them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    users: Patterns
    kinds: Kinds = ("*",)
    nodes: Patterns = ("*",)
    projects: Patterns = ("*",)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    rules: Annotated[tuple[PermissionRule, ...], Field(min_length=1, max_length=10_000)]


_DOCUMENT: Final = TypeAdapter(_Document)


def read_rules(given: str) -> tuple[PermissionRule, ...]:
    """Read rules from JSON that starts with a brace, or else from the ``.toml`` or ``.json`` file of that name.

    Raises:
        RulesError: the file cannot be read, or what it says is no list of rules.
    """
    try:
        document = json.loads(given) if given.lstrip().startswith("{") else _file(Path(given))
        return _DOCUMENT.validate_python(document).rules
    except OSError as error:
        raise RulesError(f"the file of rules cannot be read ({error.strerror})") from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise RulesError(f"{where or 'the document'}: {fault['msg'].removeprefix('Value error, ')}") from None
    except (ValueError, RecursionError):
        raise RulesError("is neither well-formed JSON or TOML nor the name of a file that is") from None


def _file(path: Path) -> object:
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise RulesError(f"the file of rules is larger than {_MAX_BYTES} bytes")
    document: object = tomllib.loads(text.decode()) if path.suffix == ".toml" else json.loads(text)
    return document
