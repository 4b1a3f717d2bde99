"""Which hypervisor addresses may be opened.

A libvirt URI can make the client run a program, connect to any socket or read
any file. An address is therefore taken apart here by a grammar much narrower
than libvirt's, and opened only if every part of it matches a pattern of the
operator's: a ``*`` in a pattern's host stands for the names and addresses of
other hosts, one in its port for any port, one in its path or in a parameter for
characters within one path segment, and nothing else is ever a wildcard. A port
that a pattern does not name is the transport's own; this machine and what is
only on its links (``localhost``, ``127.0.0.1``, ``169.254.169.254``, ``[::1]``)
are never meant by a wildcard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PATTERNS: Final = ("qemu:///system", "test:///default")
"""None names a host: whoever may send commands could otherwise have any host's ports knocked at."""

_HARMLESS: Final = frozenset({"no_tty"})
_FORBIDDEN_TRANSPORTS: Final = frozenset({"ext"})
PORTS: Final = {"tcp": "16509", "tls": "16514", "ssh": "22", "libssh": "22", "libssh2": "22"}
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"})
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_MAX_LENGTH: Final = 1024
_FORM: Final = re.compile(
    r"(?P<driver>[a-z][a-z0-9]*)(?:\+(?P<transport>[a-z][a-z0-9]*))?://"
    r"(?:(?P<user>[A-Za-z0-9._-]+)@)?"
    r"(?:(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?)?"
    r"(?P<path>/[A-Za-z0-9._+/-]*)"
    r"(?:\?(?P<query>[A-Za-z0-9._+/=&-]*))?",
    re.ASCII,
)
_PATTERN_FORM: Final = re.compile(
    r"(?P<scheme>[a-z0-9+]+)://(?:(?P<user>[^@/?*]+)@)?"
    r"(?P<host>\[[^@/?\[\]]*\]|[^@/?:\[\]]*)(?::(?P<port>[0-9*]+))?(?P<path>/[^?]*)(?:\?(?P<query>.*))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class _Pattern:
    scheme: str
    user: str | None
    host: re.Pattern[str]
    names_host: bool
    port: re.Pattern[str]
    path: re.Pattern[str]
    parameters: dict[str, re.Pattern[str]]


class Allowed:
    """The operator's patterns, compiled.

    Raises:
        ValueError: a pattern that is not of the form ``scheme://host/path``,
            or one with a wildcard where none may be.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_compile(pattern) for pattern in patterns]

    def refusal(self, uri: str) -> str | None:
        """Say why an address may not be opened; ``None`` if it may. The address itself is never quoted."""
        match = _FORM.fullmatch(uri) if len(uri) <= _MAX_LENGTH else None
        if match is None:
            return "the hypervisor's address is not of the form driver+transport://host/path that is accepted here"
        parameters = _parameters(match["query"])
        if parameters is None:
            return "the parameters of the hypervisor's address are not name=value, each named once"
        return _trick(uri, match) or self._mismatch(match, parameters)

    def _mismatch(self, match: re.Match[str], parameters: dict[str, str]) -> str | None:
        patterns = [pattern for pattern in self._patterns if _fits(pattern, match)]
        for pattern in patterns:
            complete = pattern.parameters.keys() <= parameters.keys()
            if complete and all(_parameter_fits(pattern, name, value) for name, value in parameters.items()):
                return None
        odd = sorted(parameters.keys() - _HARMLESS)
        if odd and patterns:
            return f"the hypervisor's address has a parameter that is not allowed: {', '.join(odd)[:128]}"
        return "the hypervisor's address matches none of the allowed patterns"


def _trick(uri: str, match: re.Match[str]) -> str | None:
    """Say what no pattern can allow."""
    if match["transport"] in _FORBIDDEN_TRANSPORTS:
        return f"the transport {match['transport']!r} runs a program and is never allowed"
    if any(part in {".", ".."} for part in re.split(r"[/=&]", uri)):
        return "the hypervisor's address holds a path that leads upwards"
    if any((match[part] or "").startswith("-") for part in ("user", "host")):
        return "the hypervisor's address names a host or a user that starts with a dash"
    return None


def _fits(pattern: _Pattern, match: re.Match[str]) -> bool:
    scheme = match["driver"] + (f"+{match['transport']}" if match["transport"] else "")
    host = match["host"] or ""
    return (
        scheme == pattern.scheme
        and match["user"] == pattern.user
        and pattern.host.fullmatch(host) is not None
        and (pattern.names_host or not _near(host))
        and pattern.port.fullmatch(match["port"] or PORTS.get(match["transport"], "")) is not None
        and pattern.path.fullmatch(match["path"]) is not None
    )


def _near(host: str) -> bool:
    """Whether a host is this machine or on its links only, or a number written so that only a resolver reads it."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ip_address(name)
    except ValueError:
        first, last = name.partition(".")[0], name.rpartition(".")[2]
        return first in _LOCAL_NAMES or last in _LOCAL_NAMES or _NUMBER.fullmatch(last) is not None
    inside = getattr(address, "ipv4_mapped", None) or address
    return any((inside.is_loopback, inside.is_link_local, inside.is_unspecified, inside.is_multicast))


def _parameter_fits(pattern: _Pattern, name: str, value: str) -> bool:
    wanted = pattern.parameters.get(name)
    return name in _HARMLESS if wanted is None else wanted.fullmatch(value) is not None


def _parameters(query: str | None) -> dict[str, str] | None:
    """Split a query; ``None`` where it is not plain."""
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, separator, value = part.partition("=")
        if not separator or not name or name in found or "=" in value:
            return None
        found[name] = value
    return found


def _compile(pattern: str) -> _Pattern:
    match = _PATTERN_FORM.fullmatch(pattern)
    parameters = None if match is None else _parameters(match["query"])
    if match is None or parameters is None:
        raise ValueError(f"the pattern {pattern[:128]!r} is not of the form scheme://host/path")
    if forbidden := sorted(parameters.keys() - {"root"} - _HARMLESS):
        raise ValueError(f"the pattern {pattern[:128]!r} names the parameter {forbidden[0]!r}, which is never allowed")
    transport = match["scheme"].partition("+")[2]
    return _Pattern(
        scheme=match["scheme"],
        user=match["user"],
        host=_wildcard(match["host"], r"[A-Za-z0-9._:\[\]-]+"),
        names_host="*" not in match["host"],
        port=_wildcard(match["port"] or PORTS.get(transport, ""), r"[0-9]+"),
        path=_wildcard(match["path"], r"[A-Za-z0-9._+-]+"),
        parameters={name: _wildcard(value, r"[A-Za-z0-9._+-]+") for name, value in parameters.items()},
    )


def _wildcard(text: str, stand_in: str) -> re.Pattern[str]:
    return re.compile(stand_in.join(re.escape(part) for part in text.split("*")), re.ASCII)
